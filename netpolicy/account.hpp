// What the filter counted, read from its maps.
#pragma once

#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "base/result.hpp"
#include "ebpf/egress_abi.h"
#include "model/evidence.hpp"

namespace cellrund::netpolicy {

struct Account {
  std::array<std::uint64_t, CR_VERDICTS> packets{};  // by verdict, summed over all CPUs
  std::uint64_t suppressed = 0;                     // counted, but too many different ones to be listed
  std::vector<std::pair<cr_decision_key, cr_decision>> decisions;

  // Decisions: denied packets and flows opened. Later packets of a flow follow from its decision.
  [[nodiscard]] std::uint64_t counted() const noexcept;
};

// A consistent picture when the cell is quiet, as it is after its end: counters are read before and after the
// decisions, a few times if they moved. Under fire the parts may differ by the packets in flight.
base::Result<Account> read_account(int counters_fd, int decisions_fd);

// What has passed so far, of a usage map.
base::Result<cr_usage> read_usage(int usage_fd);

// Counters that are not zero, decisions in the order of their first appearance, and seen + suppressed + lost = counted.
// `lost` is always 0: counters and decisions are maps, there is no ring that could overflow.
void fill_account(const Account& account, model::EgressFacts& facts);

}  // namespace cellrund::netpolicy
