// What cell-init is told to run, as far as it is the same in every lane that speaks the wire protocol itself.
#pragma once

#include "cell/lane.hpp"
#include "shim/wire/workload.hpp"

namespace cellrund::cell {

[[nodiscard]] wire::Workload base_workload(const CellPlan& plan);

// "TERM@12.000": seconds after START, the form of evidence's deadline ladder.
[[nodiscard]] std::string ladder_step(std::string_view what, base::BootTime started, base::BootTime at);

}  // namespace cellrund::cell
