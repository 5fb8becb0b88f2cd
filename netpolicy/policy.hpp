// From a job's egress policy to the contents of its filter's maps. Pure: what the node is like comes in as NodeFacts, and
// the same inputs give the same maps, the same digests and (netpolicy/explain.hpp) the same answers.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "ebpf/egress_abi.h"
#include "model/egress.hpp"
#include "model/loosen.hpp"

namespace cellrund::netpolicy {

// Addresses in host byte order.
struct NodeFacts {
  std::uint32_t router = 0;                   // the cell's gateway
  std::vector<std::uint32_t> host_addresses;  // every IPv4 address of the host
  std::int64_t boot_offset_ns = 0;            // CLOCK_BOOTTIME - CLOCK_REALTIME: rules expire by the clock that nobody sets
};

struct DenyEntry {
  model::Ipv4Prefix prefix;
  std::uint32_t reason = CR_REASONS;  // CR_REASONS: not denied here; CR_ROUTER_BUT_DNS: CR_ROUTER but for the resolver

  friend auto operator<=>(const DenyEntry&, const DenyEntry&) = default;
};

struct AllowEntry {
  model::Transport protocol = model::Transport::kTcp;
  std::uint16_t port = 0;
  model::Ipv4Prefix prefix;
  std::uint64_t expires_ns = CR_NEVER;  // CLOCK_BOOTTIME
  std::uint32_t rule = 0;               // index in the jobspec

  friend auto operator<=>(const AllowEntry&, const AllowEntry&) = default;
};

// A rule that names its target. Which addresses that is, the resolver finds out (netpolicy/resolver/name_table.hpp).
struct NameRule {
  model::HostName to;
  model::Transport protocol = model::Transport::kTcp;
  std::vector<std::uint16_t> ports;
  std::uint64_t expires_ns = CR_NEVER;
  std::uint32_t rule = 0;
};

// One entry of the named map.
struct NamedService {
  model::Transport protocol = model::Transport::kTcp;
  std::uint16_t port = 0;
  std::uint32_t address = 0;

  friend auto operator<=>(const NamedService&, const NamedService&) = default;
};
struct NamedEntry {
  std::uint64_t expires_ns = 0;  // opens no flow from then on
  std::uint64_t rule_expires_ns = CR_NEVER;
  std::uint32_t rule = 0;
};

struct CompiledPolicy {
  std::vector<DenyEntry> deny;    // sorted, each prefix once
  std::vector<AllowEntry> allow;  // sorted, each protocol, port and prefix once; a longer prefix expires later
  std::vector<NameRule> names;    // in the order of the jobspec
  // Whether a name may have an address outside the private ranges. One inside them then takes a rule that holds it.
  bool names_reach_public = false;
  model::EgressQuota quota;
  std::string policy_digest;             // "sha256:…" of the policy's canonical text
  std::vector<std::string> relaxations;  // as the trust file writes them
};

// Where several rules hold for a target, it is allowed until the last of them expires.
[[nodiscard]] CompiledPolicy compile(const model::EgressPolicy& policy, std::span<const model::Relaxation> relaxations,
                                     const NodeFacts& facts);

// What the maps say of a target: the longest match, as the kernel finds it. Null: no entry.
// Why nobody may send to this address and port, or CR_REASONS.
[[nodiscard]] std::uint32_t denial_of(const DenyEntry& entry, std::uint16_t port) noexcept;
[[nodiscard]] const DenyEntry* find_deny(const CompiledPolicy& policy, std::uint32_t address) noexcept;
[[nodiscard]] const AllowEntry* find_allow(const CompiledPolicy& policy, model::Transport protocol, std::uint16_t port,
                                           std::uint32_t address) noexcept;

// "sha256:…" over both maps' contents, in whatever order they are given.
[[nodiscard]] std::string map_digest(std::vector<DenyEntry> deny, std::vector<AllowEntry> allow);

}  // namespace cellrund::netpolicy
