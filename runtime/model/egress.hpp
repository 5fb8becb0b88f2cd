// The egress policy of a jobspec (spec.network.egress) as a typed value. No rules mean that everything is denied.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.hpp"
#include "model/ipv4.hpp"

namespace cellrund::model {

enum class Transport : std::uint8_t { kTcp = 6, kUdp = 17 };  // protocol numbers of the IPv4 header
[[nodiscard]] constexpr std::string_view to_string(Transport transport) noexcept {
  return transport == Transport::kTcp ? "tcp" : "udp";
}

struct EgressRule {
  Ipv4Prefix to;
  std::vector<std::uint16_t> ports;  // 1 to 16, no two the same
  Transport protocol = Transport::kTcp;
  std::optional<base::WallTime> expires_at;  // absent: as long as the job
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

  std::vector<EgressRule> rules;
  EgressQuota quota;
};

// "spec.network.egress.rules[3]", as messages and evidence name a rule.
[[nodiscard]] inline std::string rule_field(std::size_t index) {
  return "spec.network.egress.rules[" + std::to_string(index) + "]";
}

}  // namespace cellrund::model
