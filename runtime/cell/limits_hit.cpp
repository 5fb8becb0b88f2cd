#include "cell/limits_hit.hpp"

#include <utility>

namespace cellrund::cell {

using model::Outcome;
using model::Reason;

namespace {

Outcome ended_by(Outcome outcome, Reason reason, const char* what) {
  outcome.reason = reason;
  outcome.state = model::terminal_state(reason);
  outcome.message = outcome.message.empty() ? what : std::string(what) + "; " + outcome.message;
  return outcome;
}

}  // namespace

Outcome with_limits(Outcome outcome, const model::LimitFacts& hit) {
  const bool failed = outcome.reason == Reason::kError || outcome.reason == Reason::kSignaled;
  const bool broke_down = outcome.reason == Reason::kVmmCrashed || outcome.reason == Reason::kAgentUnreachable ||
                          outcome.reason == Reason::kVmmStartFailed;
  if ((failed || broke_down) && hit.host_oom_kills > 0) {
    return ended_by(std::move(outcome), Reason::kOomKilledHost, "the cell reached its memory limit on the host");
  }
  if (!failed) {
    return outcome;
  }
  if (hit.memory) {
    return ended_by(std::move(outcome), Reason::kOomKilledGuest, "the guest ran out of memory");
  }
  if (hit.pids || hit.host_pids_refused > 0) {
    return ended_by(std::move(outcome), Reason::kPidsExhausted, "the job reached its limit of processes");
  }
  if (hit.disk) {
    return ended_by(std::move(outcome), Reason::kDiskQuotaExceeded, "a file system that the job may write was full at its end");
  }
  return outcome;
}

std::optional<model::PeakFacts> peak_of(const host::CgroupUsage& usage) {
  if (!usage.memory_peak_bytes.has_value() && !usage.pids_peak.has_value() && !usage.cpu_usage_us.has_value()) {
    return std::nullopt;
  }
  return model::PeakFacts{.memory_bytes = usage.memory_peak_bytes.value_or(0),
                          .pids = usage.pids_peak.value_or(0),
                          .cpu_usec = usage.cpu_usage_us.value_or(0)};
}

}  // namespace cellrund::cell
