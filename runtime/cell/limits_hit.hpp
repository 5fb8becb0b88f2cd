// Whether it was a limit that ended a job, and what its cell used at most.
#pragma once

#include <optional>

#include "host/cgroup.hpp"
#include "model/evidence.hpp"
#include "model/outcome.hpp"

namespace cellrund::cell {

// The outcome, told apart. A job that ended by itself and failed, or a cell that broke down, gets the reason of the limit
// that it ran against: the host's memory first, then the guest's, then pids, then disk. A job that succeeded all the same,
// was cancelled or ran into its deadline keeps its reason. Pure.
[[nodiscard]] model::Outcome with_limits(model::Outcome outcome, const model::LimitFacts& hit);

// nullopt where the kernel counts nothing of it.
[[nodiscard]] std::optional<model::PeakFacts> peak_of(const host::CgroupUsage& usage);

}  // namespace cellrund::cell
