// What the filter would say to a job's first packet to a target, from the very maps that it would be given. Pure.
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

  [[nodiscard]] std::string text() const;  // "198.51.100.7:443/tcp"
};

// "ADDRESS:PORT", "ADDRESS:PORT/tcp" or "ADDRESS:PORT/udp". kInvalidArgument says what is wrong, kUnimplemented that
// ADDRESS is a name.
base::Result<Target> parse_target(std::string_view text);

struct Explanation {
  bool allowed = false;
  std::uint32_t reason = CR_DEFAULT_DENY;  // of a denial
  std::optional<std::size_t> rule;         // that allows it, or did until it expired
  std::optional<model::Ipv4Prefix> match;  // the entry that decided
};

// `now_ns`: CLOCK_BOOTTIME, to tell expired rules.
[[nodiscard]] Explanation explain(const CompiledPolicy& policy, const Target& target, std::uint64_t now_ns) noexcept;

}  // namespace cellrund::netpolicy
