// What the filter counted, read from its maps.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/result.hpp"
#include "ebpf/egress_abi.h"
#include "model/evidence.hpp"

namespace cellrund::netpolicy {

class Samples;

struct Account {
  using ByVerdict = std::array<std::uint64_t, CR_VERDICTS>;
  ByVerdict packets{};     // summed over all CPUs, like the next two
  ByVerdict suppressed{};  // of the packets: counted, but too many different ones to be listed
  ByVerdict lost{};        // of the packets: the ring was full
  std::vector<std::pair<cr_decision_key, cr_decision>> decisions;  // of the table; Samples adds its own

  // Decisions: denied packets and flows opened. Later packets of a flow follow from its decision.
  [[nodiscard]] std::uint64_t counted() const noexcept;
  // The first verdict whose packets are not the sum of its decisions, suppressed and lost. Empty: there is none.
  [[nodiscard]] std::string imbalance() const;
};

// A consistent picture when the cell is quiet, as it is after its end: counters are read before and after the
// decisions, a few times if they moved. Under fire the parts may differ by the packets in flight.
base::Result<Account> read_account(int counters_fd, int decisions_fd);

// What has passed so far, of a usage map.
base::Result<cr_usage> read_usage(int usage_fd);

// Counters that are not zero, decisions in the order of their first appearance, seen + suppressed + lost = counted, and
// the imbalance where that does not hold.
void fill_account(const Account& account, model::EgressFacts& facts);

// All of the above for a cell with its pins in `pins`, whose samples so far are in `samples`: takes the rest of them.
base::Status add_account(const std::string& pins, Samples& samples, model::EgressFacts& facts);

}  // namespace cellrund::netpolicy
