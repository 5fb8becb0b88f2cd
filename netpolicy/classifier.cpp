#include "netpolicy/classifier.hpp"

#include <algorithm>
#include <array>
#include <optional>

namespace cellrund::netpolicy {
namespace {

constexpr std::size_t kEthernet = 14;
constexpr std::size_t kIpv4 = 20;

constexpr std::array<std::string_view, CR_REASONS> kNames{
    "not-enforcing", "killed",       "vlan",           "truncated",       "source-mac",   "arp",
    "ipv6",          "ethertype",    "group-mac",      "destination-mac", "malformed",    "ip-options",
    "ttl",           "fragment",     "source-address", "broadcast",       "multicast",    "reserved",
    "this-network",  "loopback",     "metadata",       "link-local",      "cell-network", "icmp",
    "protocol",      "default-deny", "inbound"};

std::uint32_t big_endian(base::BytesView bytes) noexcept {
  std::uint32_t value = 0;
  for (const std::uint8_t byte : bytes) {
    value = value << 8U | byte;
  }
  return value;
}

bool same(base::BytesView bytes, const std::uint8_t* expected) noexcept {
  return std::equal(bytes.begin(), bytes.end(), expected);
}

std::optional<cr_reason> by_state(cr_state state) noexcept {
  switch (state) {
    case CR_STATE_ENFORCE:
      return std::nullopt;
    case CR_STATE_UNSET:
      return CR_NOT_ENFORCING;
    case CR_STATE_KILLED:
      return CR_KILLED;
  }
  return CR_KILLED;
}

cr_reason by_ethertype(std::uint32_t ethertype) noexcept {
  switch (ethertype) {
    case 0x0806:
      return CR_ARP;
    case 0x86dd:
      return CR_IPV6;
    case 0x8100:
    case 0x88a8:
      return CR_VLAN;
    default:
      return CR_ETHERTYPE;
  }
}

struct Range {
  std::uint32_t network;
  std::uint32_t mask;
  cr_reason reason;
};
// Most specific first.
constexpr std::array<Range, 8> kNeverReached{{
    {0xffffffff, 0xffffffff, CR_BROADCAST},
    {0xa9fea9fe, 0xffffffff, CR_METADATA},
    {0xa9fe0000, 0xffff0000, CR_LINK_LOCAL},
    {0x64400000, 0xffc00000, CR_CELL_NETWORK},
    {0x00000000, 0xff000000, CR_THIS_NETWORK},
    {0x7f000000, 0xff000000, CR_LOOPBACK},
    {0xe0000000, 0xf0000000, CR_MULTICAST},
    {0xf0000000, 0xf0000000, CR_RESERVED},
}};

// The IPv4 part of a frame whose Ethernet header is in order.
cr_reason by_ipv4(base::BytesView frame, const cr_config& config, cr_decision_key& key) noexcept {
  const base::BytesView ip = frame.subspan(kEthernet);
  const std::size_t header = (ip[0] & 0x0fU) * 4U;
  const std::size_t total = big_endian(ip.subspan(2, 2));
  if (ip[0] >> 4U != 4 || header < kIpv4 || total < header || total > ip.size()) {
    return CR_MALFORMED;
  }
  if (header > kIpv4) {
    return CR_IP_OPTIONS;
  }
  if (ip[8] <= 1) {
    return CR_TTL;
  }
  if ((big_endian(ip.subspan(6, 2)) & 0x3fffU) != 0) {
    return CR_FRAGMENT;
  }
  if (!same(ip.subspan(12, 4), config.cell_address)) {
    return CR_SOURCE_ADDRESS;
  }
  const std::uint32_t destination = big_endian(ip.subspan(16, 4));
  for (const Range& range : kNeverReached) {
    if ((destination & range.mask) == range.network) {
      return range.reason;
    }
  }
  constexpr std::uint8_t kIcmp = 1;
  constexpr std::uint8_t kTcp = 6;
  constexpr std::uint8_t kUdp = 17;
  if (key.protocol == kIcmp) {
    return CR_ICMP;
  }
  if (key.protocol != kTcp && key.protocol != kUdp) {
    return CR_PROTOCOL;
  }
  if (total < kIpv4 + (key.protocol == kTcp ? 20 : 8)) {
    return CR_TRUNCATED;
  }
  key.port = static_cast<cr_u16>(big_endian(ip.subspan(kIpv4 + 2, 2)));
  return CR_DEFAULT_DENY;
}

cr_reason by_frame(base::BytesView frame, const cr_config& config, bool vlan, cr_decision_key& key) noexcept {
  if (vlan) {
    return CR_VLAN;
  }
  if (frame.size() < kEthernet) {
    return CR_TRUNCATED;
  }
  if (!same(frame.subspan(6, 6), config.cell_mac)) {
    return CR_SOURCE_MAC;
  }
  const std::uint32_t ethertype = big_endian(frame.subspan(12, 2));
  if (ethertype != 0x0800) {
    return by_ethertype(ethertype);
  }
  if (frame.size() < kEthernet + kIpv4) {
    return CR_TRUNCATED;
  }
  std::copy_n(frame.begin() + kEthernet + 16, 4, key.address);
  key.protocol = frame[kEthernet + 9];
  if ((frame[0] & 1U) != 0) {
    return CR_GROUP_MAC;
  }
  if (!same(frame.first(6), config.gateway_mac)) {
    return CR_DESTINATION_MAC;
  }
  return by_ipv4(frame, config, key);
}

}  // namespace

Classified classify_out(base::BytesView frame, const cr_config& config, cr_state state,
                        bool vlan_in_metadata) noexcept {
  Classified result;
  const auto stopped = by_state(state);
  result.reason = stopped ? *stopped : by_frame(frame, config, vlan_in_metadata, result.key);
  result.key.reason = static_cast<cr_u8>(result.reason);
  return result;
}

Classified classify_in(base::BytesView frame, cr_state state) noexcept {
  Classified result;
  result.reason = by_state(state).value_or(CR_INBOUND);
  if (frame.size() >= kEthernet + kIpv4 && big_endian(frame.subspan(12, 2)) == 0x0800) {
    std::copy_n(frame.begin() + kEthernet + 12, 4, result.key.address);
    result.key.protocol = frame[kEthernet + 9];
  }
  result.key.reason = static_cast<cr_u8>(result.reason);
  return result;
}

std::string_view reason_name(unsigned reason) noexcept {
  return reason < kNames.size() ? kNames[reason] : "";
}

}  // namespace cellrund::netpolicy
