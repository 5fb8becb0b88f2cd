// The table of packets: one row at least for each way a cell's packet is denied. The reference classifier (unit), the
// kernel program (bpf) and the live veth pair (privileged) are all held to it.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "admit/egress_grants.hpp"
#include "base/file.hpp"
#include "ebpf/egress_abi.h"
#include "netpolicy/address.hpp"
#include "netpolicy/classifier.hpp"
#include "netpolicy/filter.hpp"
#include "netpolicy/frame.hpp"
#include "netpolicy/policy.hpp"

namespace cellrund::test {

struct PacketRow {
  std::string description;
  base::Bytes frame;
  unsigned reason;  // its verdict
};

inline constexpr std::uint32_t kCellAddress = 0x64400001;  // 100.64.0.1, slot 0
inline constexpr std::uint32_t kOutside = 0xc6336407;      // 198.51.100.7
inline constexpr std::uint8_t kTcp = 6;
inline constexpr std::uint8_t kUdp = 17;

inline constexpr std::uint32_t kHostAddress = 0xcb0071fa;         // 203.0.113.250
inline constexpr std::uint32_t kHostPrivateAddress = 0x0a020001;  // 10.2.0.1, inside the granted range
inline constexpr std::uint32_t kAllowed = 0xc0000207;             // 192.0.2.7

inline cr_config packet_config(const model::EgressQuota& quota = {}) {
  return netpolicy::make_config(kCellAddress, 0x5eed0001, quota);
}

// As admission makes it of a trust entry's egress list.
inline netpolicy::CompiledPolicy compiled(const model::EgressPolicy& policy, std::vector<std::string> grants,
                                          std::int64_t boot_offset_ns = 0) {
  return netpolicy::compile(policy, admit::EgressGrants::from(grants).relaxations_for(policy),
                            {kCellAddress - 1, {kHostAddress, kHostPrivateAddress, 0x7f000001}, boot_offset_ns});
}

inline model::EgressRule rule(const char* to, std::vector<std::uint16_t> ports,
                              model::Transport protocol = model::Transport::kTcp,
                              std::optional<base::WallTime> expires = {}) {
  return {*model::parse_ipv4_prefix(to), std::move(ports), protocol, expires};
}

inline model::EgressRule named_rule(const char* to, std::vector<std::uint16_t> ports) {
  return {model::host_name_of(to), std::move(ports), model::Transport::kTcp, {}};
}

// Rules of every kind; packet_table() holds under it as well as under no rules at all.
inline netpolicy::CompiledPolicy packet_policy() {
  const base::WallTime past{1, 0};
  return compiled({{rule("192.0.2.0/24", {443, 8443}), rule("192.0.2.53/32", {53}, model::Transport::kUdp),
                    rule("192.0.2.128/25", {80}, model::Transport::kTcp, past), rule("10.2.0.0/16", {22}),
                    rule("0.0.0.0/0", {9999}), named_rule("api.example.com", {443})},
                   {}},
                  {"public", "private:10.2.0.0/16"});
}

inline netpolicy::CompiledPolicy deny_all() { return compiled({}, {}); }

// A well-formed packet of the cell; rows below break one thing each.
inline base::Bytes packet(std::uint32_t destination = kOutside, std::uint16_t port = 443,
                          std::uint8_t protocol = kTcp) {
  return netpolicy::build_frame(
      {netpolicy::kCellMac, netpolicy::kGatewayMac, kCellAddress, destination, protocol, 40001, port});
}

inline constexpr std::size_t kTcpFlags = 47;  // offset in a frame

inline base::Bytes with(base::Bytes frame, std::size_t at, std::vector<std::uint8_t> bytes) {
  std::copy(bytes.begin(), bytes.end(), frame.begin() + static_cast<std::ptrdiff_t>(at));
  return frame;
}

inline base::Bytes cut(base::Bytes frame, std::size_t size) {
  frame.resize(size);
  return frame;
}

// Puts tag(s) between the MAC addresses and the EtherType.
inline base::Bytes tagged(base::Bytes frame, std::vector<std::uint8_t> tags) {
  frame.insert(frame.begin() + 12, tags.begin(), tags.end());
  return frame;
}

inline std::vector<PacketRow> packet_table() {
  const auto ethertype = [](std::uint8_t high, std::uint8_t low) { return with(packet(), 12, {high, low}); };
  const auto to = [](std::uint32_t address) { return packet(address, 80, kUdp); };
  std::vector<PacketRow> rows{
      {"tcp syn to an address nothing allows", packet(), CR_DEFAULT_DENY},
      {"udp datagram", packet(kOutside, 9, kUdp), CR_DEFAULT_DENY},
      {"dns query past the resolver", packet(0x08080808, 53, kUdp), CR_DEFAULT_DENY},
      {"dns over tls", packet(0x01010101, 853, kTcp), CR_DEFAULT_DENY},
      {"tcp to a private address", packet(0x0a000001, 22, kTcp), CR_PRIVATE},
      {"lowest of 172.16/12", to(0xac100000), CR_PRIVATE},
      {"highest of 172.16/12", to(0xac1fffff), CR_PRIVATE},
      {"just above 172.16/12", to(0xac200000), CR_DEFAULT_DENY},
      {"192.168/16", to(0xc0a80101), CR_PRIVATE},
      {"benchmarking range", to(0xc6130001), CR_PRIVATE},
      {"protocol assignments", to(0xc0000001), CR_PRIVATE},
      {"trailing bytes behind the datagram", cut(packet(kOutside, 9, kUdp), 60), CR_DEFAULT_DENY},

      {"vlan 0", tagged(packet(), {0x81, 0x00, 0x00, 0x00}), CR_VLAN},
      {"vlan 7", tagged(packet(), {0x81, 0x00, 0x00, 0x07}), CR_VLAN},
      {"802.1ad tag", tagged(packet(), {0x88, 0xa8, 0x00, 0x00}), CR_VLAN},
      {"two tags, 88a8 and 8100", tagged(packet(), {0x88, 0xa8, 0, 0, 0x81, 0x00, 0, 0}), CR_VLAN},
      {"two tags, 8100 and 8100", tagged(packet(), {0x81, 0x00, 0, 0, 0x81, 0x00, 0, 0}), CR_VLAN},

      {"foreign source mac", with(packet(), 6, {0x02, 0, 0, 0, 0, 9}), CR_SOURCE_MAC},
      {"gateway's mac as source", with(packet(), 6, {0x02, 0x43, 0x52, 0, 0, 1}), CR_SOURCE_MAC},
      {"source mac differs in its last bit", with(packet(), 11, {3}), CR_SOURCE_MAC},
      {"arp request", with(ethertype(0x08, 0x06), 0, {255, 255, 255, 255, 255, 255}), CR_ARP},
      {"arp to the gateway's mac", ethertype(0x08, 0x06), CR_ARP},
      {"ipv6", ethertype(0x86, 0xdd), CR_IPV6},
      {"ipv6 neighbour discovery to a multicast mac", with(ethertype(0x86, 0xdd), 0, {0x33, 0x33, 0, 0, 0, 1}),
       CR_IPV6},
      {"lldp", ethertype(0x88, 0xcc), CR_ETHERTYPE},
      {"802.1x", ethertype(0x88, 0x8e), CR_ETHERTYPE},
      {"mpls", ethertype(0x88, 0x47), CR_ETHERTYPE},
      {"pppoe session", ethertype(0x88, 0x64), CR_ETHERTYPE},
      {"802.3 length instead of a type", ethertype(0x00, 0x26), CR_ETHERTYPE},
      {"ipv4 without its header", cut(packet(), 14), CR_TRUNCATED},
      {"ipv4 header cut in its last byte", cut(packet(), 33), CR_TRUNCATED},

      {"broadcast mac", with(packet(), 0, {255, 255, 255, 255, 255, 255}), CR_GROUP_MAC},
      {"dhcp discover", with(packet(0xffffffff, 67, kUdp), 0, {255, 255, 255, 255, 255, 255}), CR_GROUP_MAC},
      {"multicast mac", with(packet(0xe00000fb, 5353, kUdp), 0, {0x01, 0x00, 0x5e, 0, 0, 0xfb}), CR_GROUP_MAC},
      {"another cell's mac as destination", with(packet(), 0, {0x02, 0x43, 0x52, 0, 0, 3}), CR_DESTINATION_MAC},
      {"own mac as destination", with(packet(), 0, {0x02, 0x43, 0x52, 0, 0, 2}), CR_DESTINATION_MAC},

      {"version 6 under the ipv4 type", with(packet(), 14, {0x65}), CR_MALFORMED},
      {"version 0", with(packet(), 14, {0x05}), CR_MALFORMED},
      {"header length of four words", with(packet(), 14, {0x44}), CR_MALFORMED},
      {"total length below the header", with(packet(), 16, {0, 19}), CR_MALFORMED},
      {"total length beyond the frame", with(packet(), 16, {0, 41}), CR_MALFORMED},
      {"total length of 64 KiB", with(packet(), 16, {0xff, 0xff}), CR_MALFORMED},
      {"total length of zero", with(packet(), 16, {0, 0}), CR_MALFORMED},
      {"ip options", with(packet(), 14, {0x46}), CR_IP_OPTIONS},
      {"longest ip header the frame holds", with(packet(), 14, {0x4a}), CR_IP_OPTIONS},
      {"time to live 0", with(packet(), 22, {0}), CR_TTL},
      {"time to live 1", with(packet(), 22, {1}), CR_TTL},
      {"first fragment", with(packet(), 20, {0x20, 0x00}), CR_FRAGMENT},
      {"later fragment", with(packet(), 20, {0x00, 0xb9}), CR_FRAGMENT},
      {"last fragment at the highest offset", with(packet(), 20, {0x1f, 0xff}), CR_FRAGMENT},
      {"fragment that also forbids fragmenting", with(packet(), 20, {0x60, 0x00}), CR_FRAGMENT},

      {"neighbour's source address", with(packet(), 26, {100, 64, 0, 3}), CR_SOURCE_ADDRESS},
      {"gateway's source address", with(packet(), 26, {100, 64, 0, 0}), CR_SOURCE_ADDRESS},
      {"source 0.0.0.0", with(packet(), 26, {0, 0, 0, 0}), CR_SOURCE_ADDRESS},
      {"source 127.0.0.1", with(packet(), 26, {127, 0, 0, 1}), CR_SOURCE_ADDRESS},

      {"limited broadcast", to(0xffffffff), CR_BROADCAST},
      {"lowest multicast", to(0xe0000000), CR_MULTICAST},
      {"highest multicast", to(0xefffffff), CR_MULTICAST},
      {"lowest reserved", to(0xf0000000), CR_RESERVED},
      {"highest reserved", to(0xfffffffe), CR_RESERVED},
      {"0.0.0.0", to(0), CR_THIS_NETWORK},
      {"0.255.255.255", to(0x00ffffff), CR_THIS_NETWORK},
      {"127.0.0.1", to(0x7f000001), CR_LOOPBACK},
      {"127.255.255.255", to(0x7fffffff), CR_LOOPBACK},
      {"cloud metadata", packet(0xa9fea9fe, 80, kTcp), CR_METADATA},
      {"cloud metadata by udp", to(0xa9fea9fe), CR_METADATA},
      {"task metadata", packet(0xa9feaa02, 80, kTcp), CR_METADATA},
      {"metadata inside the cells' network", packet(0x646464c8, 80, kTcp), CR_METADATA},
      {"link-local beside metadata", to(0xa9fea9fd), CR_LINK_LOCAL},
      {"lowest link-local", to(0xa9fe0000), CR_LINK_LOCAL},
      {"highest link-local", to(0xa9feffff), CR_LINK_LOCAL},
      {"the gateway", to(0x64400000), CR_ROUTER},
      {"another cell", to(0x64400003), CR_CELL_NETWORK},
      {"highest cell address", to(0x647fffff), CR_CELL_NETWORK},
      {"just below the cells' network", to(0x643fffff), CR_DEFAULT_DENY},
      {"just above the cells' network", to(0x64800000), CR_DEFAULT_DENY},
      {"just below multicast", to(0xdfffffff), CR_DEFAULT_DENY},

      {"icmp echo", packet(kOutside, 0, 1), CR_ICMP},
      {"gre", packet(kOutside, 0, 47), CR_PROTOCOL},
      {"ip in ip", packet(kOutside, 0, 4), CR_PROTOCOL},
      {"ipv6 in ip", packet(kOutside, 0, 41), CR_PROTOCOL},
      {"esp", packet(kOutside, 0, 50), CR_PROTOCOL},
      {"sctp", packet(kOutside, 0, 132), CR_PROTOCOL},
      {"protocol 255", packet(kOutside, 0, 255), CR_PROTOCOL},
      {"udp without its header", with(cut(packet(kOutside, 9, kUdp), 34), 16, {0, 20}), CR_TRUNCATED},
      {"udp header cut by the total length", with(packet(kOutside, 9, kUdp), 16, {0, 27}), CR_TRUNCATED},
      {"tcp header of eight bytes", with(cut(packet(), 42), 16, {0, 28}), CR_TRUNCATED},
      {"tcp header cut by the total length", with(packet(), 16, {0, 39}), CR_TRUNCATED},
  };
  return rows;
}

// What packet_policy() says beyond the table above, to the first packet of each kind.
inline std::vector<PacketRow> policy_table() {
  const auto flags = [](std::uint32_t address, std::uint16_t port, std::uint8_t value) {
    return with(packet(address, port), kTcpFlags, {value});
  };
  return {
      {"a host's address", packet(kHostAddress, 443), CR_HOST},
      {"a host's address on a port that is open to all", packet(kHostAddress, 9999), CR_HOST},
      {"a host's address in a granted range", packet(kHostPrivateAddress, 22), CR_HOST},
      {"metadata on a port that is open to all", packet(0xa9fea9fe, 9999), CR_METADATA},
      {"the gateway on a port that is open to all", packet(0x64400000, 9999), CR_ROUTER},
      {"the cell's resolver", packet(0x64400000, 53, kUdp), CR_ALLOWED},
      {"the cell's resolver by tcp", packet(0x64400000, 53), CR_ALLOWED},
      {"another cell's resolver", packet(0x64400002, 53, kUdp), CR_CELL_NETWORK},
      {"the gateway beside its resolver", packet(0x64400000, 853), CR_ROUTER},
      {"private on a port that is open to all", packet(0xc0a80101, 9999), CR_PRIVATE},
      {"granted range, port open to all", packet(0x0a02ffff, 9999), CR_ALLOWED},
      {"granted range, its port", packet(0x0a020002, 22), CR_ALLOWED},
      {"beside the granted range", packet(0x0a030002, 22), CR_PRIVATE},
      {"allowed", packet(kAllowed, 443), CR_ALLOWED},
      {"allowed, second port", packet(kAllowed, 8443), CR_ALLOWED},
      {"allowed address, other port", packet(kAllowed, 444), CR_DEFAULT_DENY},
      {"allowed address and port, other protocol", packet(kAllowed, 443, kUdp), CR_DEFAULT_DENY},
      {"just below the range", packet(0xc00001ff, 443), CR_DEFAULT_DENY},
      {"just above the range", packet(0xc0000300, 443), CR_DEFAULT_DENY},
      {"allowed udp", packet(0xc0000235, 53, kUdp), CR_ALLOWED},
      {"allowed udp, by tcp", packet(0xc0000235, 53), CR_DEFAULT_DENY},
      {"expired", packet(0xc0000281, 80), CR_EXPIRED},
      {"ack of no flow", flags(kAllowed, 443, 0x10), CR_TCP_STATE},
      {"syn with ack", flags(kAllowed, 443, 0x12), CR_TCP_STATE},
      {"syn with fin", flags(kAllowed, 443, 0x03), CR_TCP_STATE},
      {"syn with rst", flags(kAllowed, 443, 0x06), CR_TCP_STATE},
      {"rst of no flow", flags(kAllowed, 443, 0x04), CR_TCP_STATE},
      {"no flags", flags(kAllowed, 443, 0x00), CR_TCP_STATE},
      {"syn with push and urgent", flags(kAllowed, 443, 0x2a), CR_ALLOWED},
  };
}

// The frame that answers: both ends exchanged at every layer.
inline base::Bytes reply_to(const base::Bytes& frame, std::uint8_t tcp_flags = 0x12) {
  base::Bytes out = frame;
  std::swap_ranges(out.begin(), out.begin() + 6, out.begin() + 6);
  std::swap_ranges(out.begin() + 26, out.begin() + 30, out.begin() + 30);
  std::swap_ranges(out.begin() + 34, out.begin() + 36, out.begin() + 36);
  if (out[23] == kTcp && out.size() > kTcpFlags) {
    out[kTcpFlags] = tcp_flags;
  }
  return out;
}

// A filter that is armed and has its lease.
inline netpolicy::Conditions armed_conditions() { return {CR_STATE_ENFORCE, {}, 1'000'000'000, CR_NEVER}; }

}  // namespace cellrund::test
