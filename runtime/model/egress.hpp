// The egress policy of a jobspec (spec.network.egress) as a typed value. No rules mean that everything is denied.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/clock.hpp"
#include "model/host_name.hpp"
#include "model/ipv4.hpp"

namespace cellrund::model {

enum class Transport : std::uint8_t { kTcp = 6, kUdp = 17 };  // protocol numbers of the IPv4 header
[[nodiscard]] constexpr std::string_view to_string(Transport transport) noexcept {
  return transport == Transport::kTcp ? "tcp" : "udp";
}

struct EgressRule {
  std::variant<Ipv4Prefix, HostName> to;
  std::vector<std::uint16_t> ports;  // 1 to 16, no two the same
  Transport protocol = Transport::kTcp;
  std::optional<base::WallTime> expires_at;  // absent: as long as the job

  [[nodiscard]] const Ipv4Prefix* prefix() const noexcept { return std::get_if<Ipv4Prefix>(&to); }
  [[nodiscard]] const HostName* name() const noexcept { return std::get_if<HostName>(&to); }
};

// What a job may use in all; absent: no limit. Packets and bytes count in both directions, Ethernet header included.
struct EgressQuota {
  std::optional<std::uint64_t> bytes, packets, connections;
  std::optional<std::uint64_t> dns_queries;  // to the node's resolver; without one there are none
  std::optional<std::uint64_t> bytes_per_second;
};

struct EgressPolicy {
  static constexpr std::size_t kMaxRules = 10'000;
  static constexpr std::size_t kMaxPorts = 16;
  static constexpr std::size_t kMaxNameRules = 256;

  std::vector<EgressRule> rules;
  EgressQuota quota;

  // Whether it takes a resolver.
  [[nodiscard]] bool names_hosts() const noexcept {
    return std::any_of(rules.begin(), rules.end(), [](const EgressRule& rule) { return rule.name() != nullptr; });
  }
};

// "spec.network.egress.rules[3]", as messages and evidence name a rule.
[[nodiscard]] inline std::string rule_field(std::size_t index) {
  return "spec.network.egress.rules[" + std::to_string(index) + "]";
}

}  // namespace cellrund::model
