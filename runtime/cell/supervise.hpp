// From START to the end of a cell: output, cancellation and the deadline. Runs on the cell's thread.
#pragma once

#include <functional>
#include <memory>

#include "cell/job_table.hpp"
#include "cell/lane.hpp"
#include "cell/log_store.hpp"
#include "cell/watchdog.hpp"
#include "model/evidence.hpp"
#include "model/outcome.hpp"

namespace cellrund::cell {

struct Supervised {
  model::Outcome outcome;
  model::DeadlineFacts deadline;
  model::LimitFacts limits;  // what cell-init found
  std::optional<base::BootTime> ended;  // absent: it was killed, and nobody saw the end
  std::vector<std::pair<std::string, base::BootTime>> revoked;
};

struct SuperviseOptions {
  const model::JobSpec& spec;
  Watchdog& watchdog;
  const CancelFlag& cancel;
  std::function<void(std::string_view cause)> on_stopping;  // the first step of the ladder was taken
};

// Returns once the cell has ended and no process of it is left that the lane knows of, at the latest at its deadline
// plus grace plus kKillSlack.
Supervised supervise(RunningCell& cell, OutputSink& sink, const SuperviseOptions& options);

// How long the lane's own deadline has a head start over the watchdog, so that its ladder is the one on record.
inline constexpr std::chrono::milliseconds kWatchdogSlack{250};
// How long a killed cell may take to disappear before it is reported as it is.
inline constexpr std::chrono::seconds kKillSlack{2};

// Why a cell was ended from outside, beside what its lane reports.
struct Causes {
  CancelCause cancel = CancelCause::kNone;
  std::optional<base::BootTime> stopping_since;  // when the ladder for `cancel` began
  std::optional<base::BootTime> watchdog_fired;
  std::optional<base::BootTime> deadline;        // the active deadline
};

// What a cell's end means for the job: whichever of deadline and cancellation came first, else the lane's own account. Pure.
[[nodiscard]] model::Outcome outcome_of(const LaneEnd& end, const Causes& causes);

}  // namespace cellrund::cell
