// The table of packets: one row at least for each way a cell's packet is denied. The reference classifier (unit), the
// kernel program (bpf) and the live veth pair (privileged) are all held to it.
#pragma once

#include <string>
#include <vector>

#include "base/file.hpp"
#include "ebpf/egress_abi.h"
#include "netpolicy/address.hpp"
#include "netpolicy/frame.hpp"

namespace cellrund::test {

struct PacketRow {
  std::string description;
  base::Bytes frame;
  cr_reason reason;
};

inline constexpr std::uint32_t kCellAddress = 0x64400001;  // 100.64.0.1, slot 0
inline constexpr std::uint32_t kOutside = 0xc6336407;      // 198.51.100.7
inline constexpr std::uint8_t kTcp = 6;
inline constexpr std::uint8_t kUdp = 17;

inline cr_config packet_config() {
  return {{0x02, 0x43, 0x52, 0, 0, 2}, {0x02, 0x43, 0x52, 0, 0, 1}, {100, 64, 0, 1}, 0x5eed0001};
}

// A well-formed packet of the cell; rows below break one thing each.
inline base::Bytes packet(std::uint32_t destination = kOutside, std::uint16_t port = 443,
                          std::uint8_t protocol = kTcp) {
  return netpolicy::build_frame(
      {netpolicy::kCellMac, netpolicy::kGatewayMac, kCellAddress, destination, protocol, 40001, port});
}

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
      {"tcp to a private address", packet(0x0a000001, 22, kTcp), CR_DEFAULT_DENY},
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
      {"link-local beside metadata", to(0xa9fea9fd), CR_LINK_LOCAL},
      {"lowest link-local", to(0xa9fe0000), CR_LINK_LOCAL},
      {"highest link-local", to(0xa9feffff), CR_LINK_LOCAL},
      {"the gateway", to(0x64400000), CR_CELL_NETWORK},
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

}  // namespace cellrund::test
