// What the filter, or for a name the resolver, would say to a job's first packet to a target, from the very maps that it
// would be given. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "netpolicy/policy.hpp"

namespace cellrund::netpolicy {

struct Target {
  std::uint32_t address = 0;
  std::uint16_t port = 0;
  model::Transport protocol = model::Transport::kTcp;
  std::string name;  // a host name, lower case; empty: the address counts

  [[nodiscard]] std::string text() const;  // "198.51.100.7:443/tcp", "api.example.com:443/tcp"
};

// "HOST:PORT", "HOST:PORT/tcp" or "HOST:PORT/udp", HOST an IPv4 address or a name. kInvalidArgument says what is wrong.
base::Result<Target> parse_target(std::string_view text);

struct Explanation {
  bool allowed = false;    // of a name: as far as its addresses are none that the deny set holds
  bool resolver = false;   // the target is the cell's own resolver
  std::uint32_t reason = CR_DEFAULT_DENY;  // of a denial
  std::optional<std::size_t> rule;         // that allows it, or did until it expired
  std::optional<model::Ipv4Prefix> match;  // the entry that decided
};

// `now_ns`: CLOCK_BOOTTIME, to tell expired rules.
[[nodiscard]] Explanation explain(const CompiledPolicy& policy, const Target& target, std::uint64_t now_ns) noexcept;

}  // namespace cellrund::netpolicy
