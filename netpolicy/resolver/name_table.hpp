// What a cell may reach by name, right now: decides on the addresses that its resolver proposes, and knows what the
// named map holds. Pure: the map itself is written by who owns the table.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "netpolicy/policy.hpp"

namespace cellrund::netpolicy::resolver {

// Before any entry of an answer goes: its TTL, but at least this long, and then what a slow cell needs to connect.
inline constexpr std::uint64_t kShortestSeconds = 30;
inline constexpr std::uint64_t kLongestSeconds = 3600;
inline constexpr std::uint64_t kGraceSeconds = 5;

// Why an address of a name of the policy may not be reached: reason_name() of this cr_reason, or "table-full".
[[nodiscard]] std::string_view denial_name(std::uint32_t reason) noexcept;

struct Admitted {
  std::uint64_t accepted = 0;  // bit n: address n
  std::vector<std::pair<NamedService, NamedEntry>> put;
  std::vector<NamedService> erase;                              // expired; to be done first
  std::vector<std::pair<std::uint32_t, std::uint32_t>> denied;  // address, cr_reason
};

// The named map, or what stands for it.
struct NamedMap {
  std::function<bool(const NamedService&, const NamedEntry&)> put;  // false: not written
  std::function<void(const NamedService&)> erase;
};

class NameTable {
 public:
  // `blocked`: what the job demands to be closed, whatever a name resolves to.
  explicit NameTable(const CompiledPolicy& policy, std::span<const NamedService> blocked = {})
      : policy_(policy), blocked_(blocked.begin(), blocked.end()) {}

  // `name` as the resolver says it, `ttl` in seconds, at most 64 addresses, `now_ns` of CLOCK_BOOTTIME. An address is
  // accepted for every service that a rule opens at the name, or not at all.
  Admitted admit(std::string_view name, std::uint32_t ttl, std::span<const std::uint32_t> addresses,
                 std::uint64_t now_ns);

  // Brings the map to what admit() has just decided about `addresses`. Where an entry cannot be written the address is
  // not accepted, and an older entry of that service goes: what the table does not know is in the map no longer either.
  void write(Admitted& admitted, std::span<const std::uint32_t> addresses, const NamedMap& map);
  [[nodiscard]] std::size_t size() const noexcept { return entries_.size(); }

 private:
  [[nodiscard]] std::uint32_t denial(std::uint32_t address, std::uint64_t now_ns) const noexcept;

  CompiledPolicy policy_;
  std::set<NamedService> blocked_;
  std::map<NamedService, NamedEntry> entries_;
};

}  // namespace cellrund::netpolicy::resolver
