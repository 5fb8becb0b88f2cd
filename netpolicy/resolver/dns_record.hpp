// Every query of one cell, for the record: different ones are listed as long as there is room, all of them are counted by
// their verdicts. What was refused has little room of its own, so that made-up names crowd out no name that was served.
// Thread-safe.
#pragma once

#include <array>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "base/clock.hpp"
#include "base/guarded.hpp"
#include "model/evidence.hpp"
#include "netpolicy/resolver/channel.hpp"

namespace cellrund::netpolicy::resolver {

class DnsRecord {
 public:
  static constexpr std::size_t kMaxQueries = 256;  // different ones
  static constexpr std::size_t kMaxRefused = 64;   // of them
  static constexpr std::size_t kMaxAddresses = 8;  // of each

  DnsRecord(std::vector<std::string> upstreams, bool tunnel_capable)
      : upstreams_(std::move(upstreams)), tunnel_capable_(tunnel_capable) {}

  void add(const Report& report, base::BootTime now);
  // What was decided about a name's addresses; shown beside its queries.
  void set_addresses(const std::string& name, std::vector<std::string> addresses);
  // The resolver no longer serves.
  void set_failure(std::string why);
  // Queries in the order of their first appearance, and the account: seen + suppressed is the sum of the
  // counters, which are kept apart from them.
  [[nodiscard]] model::DnsFacts facts() const;

 private:
  using Key = std::tuple<std::string, std::uint16_t, Verdict>;
  struct State {
    std::map<Key, std::size_t> index;
    std::vector<model::DnsQuery> queries;
    std::size_t refused = 0;  // of the queries
    std::array<std::uint64_t, kVerdicts> counters{};
    std::map<std::string, std::vector<std::string>> addresses;
    std::uint64_t seen = 0, suppressed = 0;
    std::string failure;
  };
  std::vector<std::string> upstreams_;
  bool tunnel_capable_;
  mutable base::Guarded<State> state_;
};

}  // namespace cellrund::netpolicy::resolver
