#include "netpolicy/classifier.hpp"

#include <algorithm>
#include <cstring>
#include <optional>

namespace cellrund::netpolicy {
namespace {

constexpr std::size_t kEthernet = 14;
constexpr std::size_t kIpv4 = 20;
constexpr std::size_t kTcpHeader = 20;
constexpr std::size_t kUdpHeader = 8;
constexpr std::uint8_t kIcmp = 1;
constexpr std::uint8_t kTcp = 6;
constexpr std::uint8_t kUdp = 17;
constexpr unsigned kFin = 0x01, kSyn = 0x02, kRst = 0x04, kAck = 0x10;

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

std::optional<unsigned> by_state(const Conditions& conditions) noexcept {
  switch (conditions.state) {
    case CR_STATE_ENFORCE:
      return conditions.node.kill_switch != 0 ? std::optional<unsigned>(CR_KILL_SWITCH) : std::nullopt;
    case CR_STATE_UNSET:
      return CR_NOT_ENFORCING;
    case CR_STATE_KILLED:
      return CR_KILLED;
  }
  return CR_KILLED;
}

unsigned by_ethertype(std::uint32_t ethertype) noexcept {
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

// The IPv4 header of a frame of the cell whose Ethernet header is in order.
std::optional<unsigned> by_ipv4(base::BytesView frame, const cr_config& config) noexcept {
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
  return std::nullopt;
}

// Whether the datagram says that it holds a whole header, and the frame its ports and flags.
bool has_transport(base::BytesView frame, std::uint8_t protocol) noexcept {
  const std::size_t total = big_endian(frame.subspan(kEthernet + 2, 2));
  return protocol == kTcp ? total >= kIpv4 + kTcpHeader : total >= kIpv4 + kUdpHeader;
}

bool opens(unsigned flags) noexcept { return (flags & (kSyn | kAck | kRst | kFin)) == kSyn; }

bool lives(const cr_flow& flow, const Conditions& now) noexcept {
  return flow.epoch == now.node.epoch && now.now_ns < flow.expires_ns && now.now_ns - flow.last_ns < flow.idle_ns;
}

void touch(cr_flow& flow, std::uint64_t now, unsigned flags) noexcept {
  flow.last_ns = now;
  if ((flags & (kFin | kRst)) != 0) {
    flow.idle_ns = CR_IDLE_CLOSING_NS;
  }
}

std::array<std::uint8_t, sizeof(cr_flow_key)> flow_key(const cr_decision_key& far, std::uint16_t cell_port) noexcept {
  cr_flow_key key{};
  std::copy_n(far.address, 4, key.address);
  key.port = far.port;
  key.cell_port = cell_port;
  key.protocol = far.protocol;
  std::array<std::uint8_t, sizeof(cr_flow_key)> out{};
  std::memcpy(out.data(), &key, sizeof key);
  return out;
}

}  // namespace

unsigned Classifier::spend(std::uint64_t bytes, std::uint64_t connections, const Conditions& conditions) {
  if (conditions.now_ns >= conditions.lease) {
    return CR_LEASE;
  }
  if (usage_.exhausted != 0) {
    return CR_QUOTA;
  }
  if (config_.bytes_per_second != CR_UNLIMITED && config_.bytes_per_second != 0) {
    const std::uint64_t start = std::max<std::uint64_t>(usage_.paid_until_ns, conditions.now_ns);
    if (start - conditions.now_ns > CR_RATE_BURST_NS) {
      return CR_RATE;
    }
    usage_.paid_until_ns = start + bytes * 1'000'000'000U / config_.bytes_per_second;
  }
  if (usage_.bytes + bytes > config_.max_bytes || usage_.packets + 1 > config_.max_packets ||
      usage_.connections + connections > config_.max_connections) {
    usage_.exhausted = 1;
    return CR_QUOTA;
  }
  usage_.bytes += bytes;
  usage_.packets += 1;
  usage_.connections += connections;
  return CR_REASONS;
}

unsigned Classifier::by_flow_or_rule(const cr_decision_key& key, const Transport& transport, std::size_t bytes,
                                     const Conditions& conditions) {
  const FlowKey tuple = flow_key(key, transport.source);
  if (const auto flow = flows_.find(tuple); flow != flows_.end() && lives(flow->second, conditions) &&
                                            !(opens(transport.flags) && flow->second.idle_ns == CR_IDLE_CLOSING_NS)) {
    const unsigned refused = spend(bytes, 0, conditions);
    if (refused != CR_REASONS) {
      return refused;
    }
    touch(flow->second, conditions.now_ns, transport.flags);
    return CR_ESTABLISHED;
  }
  const std::uint32_t address = big_endian({key.address, 4});
  const DenyEntry* denied = find_deny(policy_, address);
  if (denied == nullptr) {
    return CR_NOT_ENFORCING;
  }
  if (const std::uint32_t reason = denial_of(*denied, key.port); reason != CR_REASONS) {
    return reason;
  }
  const auto protocol = static_cast<model::Transport>(key.protocol);
  const AllowEntry* rule = find_allow(policy_, protocol, key.port, address);
  const auto named = named_.find({protocol, key.port, address});
  std::uint64_t ends = 0;
  std::uint32_t by = 0;
  if (rule != nullptr && conditions.now_ns < rule->expires_ns) {
    ends = rule->expires_ns;
    by = rule->rule;
  } else if (named != named_.end() && conditions.now_ns < named->second.expires_ns) {
    ends = named->second.rule_expires_ns;
    by = named->second.rule;
  } else {
    return rule == nullptr && named == named_.end() ? CR_DEFAULT_DENY : CR_EXPIRED;
  }
  if (key.protocol == kTcp && !opens(transport.flags)) {
    return CR_TCP_STATE;
  }
  const unsigned refused = spend(bytes, 1, conditions);
  if (refused != CR_REASONS) {
    return refused;
  }
  flows_[tuple] = {ends, conditions.now_ns, key.protocol == kTcp ? CR_IDLE_TCP_NS : CR_IDLE_UDP_NS,
                   conditions.node.epoch, by};
  return CR_ALLOWED;
}

unsigned Classifier::verdict_out(base::BytesView frame, const Conditions& conditions, bool vlan,
                                 cr_decision_key& key) {
  if (const auto stopped = by_state(conditions); stopped.has_value()) {
    return *stopped;
  }
  if (vlan) {
    return CR_VLAN;
  }
  if (frame.size() < kEthernet) {
    return CR_TRUNCATED;
  }
  if (!same(frame.subspan(6, 6), config_.cell_mac)) {
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
  if (!same(frame.first(6), config_.gateway_mac)) {
    return CR_DESTINATION_MAC;
  }
  if (const auto refused = by_ipv4(frame, config_); refused.has_value()) {
    return *refused;
  }
  if (key.protocol == kIcmp) {
    return CR_ICMP;
  }
  if (key.protocol != kTcp && key.protocol != kUdp) {
    return CR_PROTOCOL;
  }
  if (!has_transport(frame, key.protocol)) {
    return CR_TRUNCATED;
  }
  const base::BytesView header = frame.subspan(kEthernet + kIpv4);
  const Transport transport{static_cast<std::uint16_t>(big_endian(header.first(2))),
                            static_cast<std::uint16_t>(big_endian(header.subspan(2, 2))),
                            key.protocol == kTcp ? header[13] : std::uint8_t{0}};
  key.port = transport.destination;
  return by_flow_or_rule(key, transport, frame.size(), conditions);
}

unsigned Classifier::verdict_in(base::BytesView frame, const Conditions& conditions, bool vlan, cr_decision_key& key) {
  if (const auto stopped = by_state(conditions); stopped.has_value()) {
    return *stopped;
  }
  if (vlan || frame.size() < kEthernet || big_endian(frame.subspan(12, 2)) != 0x0800) {
    return CR_INBOUND_FRAME;
  }
  if (frame.size() < kEthernet + kIpv4) {
    return CR_INBOUND_HEADER;
  }
  const base::BytesView ip = frame.subspan(kEthernet);
  std::copy_n(ip.begin() + 12, 4, key.address);
  key.protocol = ip[9];
  if (!same(frame.first(6), config_.cell_mac) || !same(frame.subspan(6, 6), config_.gateway_mac)) {
    return CR_INBOUND_FRAME;
  }
  const std::size_t total = big_endian(ip.subspan(2, 2));
  if (ip[0] != 0x45 || total < kIpv4 || total > ip.size() || (big_endian(ip.subspan(6, 2)) & 0x3fffU) != 0 ||
      !same(ip.subspan(16, 4), config_.cell_address)) {
    return CR_INBOUND_HEADER;
  }
  if (key.protocol == kIcmp) {
    return CR_INBOUND_ICMP;
  }
  if (key.protocol != kTcp && key.protocol != kUdp) {
    return CR_INBOUND_PROTOCOL;
  }
  if (!has_transport(frame, key.protocol)) {
    return CR_INBOUND_HEADER;
  }
  const base::BytesView header = ip.subspan(kIpv4);
  key.port = static_cast<std::uint16_t>(big_endian(header.first(2)));
  const auto flow = flows_.find(flow_key(key, static_cast<std::uint16_t>(big_endian(header.subspan(2, 2)))));
  if (flow == flows_.end() || !lives(flow->second, conditions)) {
    return CR_INBOUND;
  }
  const unsigned refused = spend(frame.size(), 0, conditions);
  if (refused != CR_REASONS) {
    return refused;
  }
  touch(flow->second, conditions.now_ns, key.protocol == kTcp ? header[13] : 0U);
  return CR_REPLY;
}

Classified Classifier::out(base::BytesView frame, const Conditions& conditions, bool vlan_in_metadata) {
  Classified result;
  result.verdict = verdict_out(frame, conditions, vlan_in_metadata, result.key);
  result.key.reason = static_cast<cr_u8>(result.verdict);
  return result;
}

Classified Classifier::in(base::BytesView frame, const Conditions& conditions, bool vlan_in_metadata) {
  Classified result;
  result.verdict = verdict_in(frame, conditions, vlan_in_metadata, result.key);
  result.key.reason = static_cast<cr_u8>(result.verdict);
  return result;
}

}  // namespace cellrund::netpolicy
