#include "cell/supervise.hpp"

#include <signal.h>

#include <algorithm>
#include <atomic>

#include "base/log.hpp"
#include "cell/workload.hpp"

namespace cellrund::cell {

using base::BootTime;
using model::Reason;

model::Outcome outcome_of(const LaneEnd& end, const Causes& causes) {
  model::Outcome out;
  if (end.kind == EndKind::kExited) {
    out.exit_code = end.value;
  } else if (end.kind == EndKind::kSignaled) {
    out.signal = end.value;
  }
  out.message = end.message;
  const bool cancelled = causes.cancel != CancelCause::kNone && causes.stopping_since.has_value();
  std::optional<BootTime> deadline = end.deadline_fired.has_value() ? end.deadline_fired : causes.watchdog_fired;
  if (!deadline.has_value() && cancelled && causes.deadline.has_value() && *causes.stopping_since >= *causes.deadline) {
    deadline = causes.deadline;  // the lane was at it, and the kill left it no time to say so
  }
  if (cancelled && (!deadline.has_value() || *causes.stopping_since < *deadline)) {
    out.reason = reason_of(causes.cancel);
  } else if (deadline.has_value()) {
    out.reason = Reason::kDeadlineExceeded;
  } else {
    switch (end.kind) {
      case EndKind::kExited: out.reason = end.value == 0 ? Reason::kCompleted : Reason::kError; break;
      case EndKind::kSignaled: out.reason = Reason::kSignaled; break;
      case EndKind::kExecFailed:
        // The cell ran, its command did not: 126 or 127, as a shell would say.
        out.reason = Reason::kError;
        out.exit_code = end.value;
        break;
      case EndKind::kVmmDied: out.reason = Reason::kVmmCrashed; break;
      case EndKind::kShimDied: out.reason = Reason::kShimDied; break;
      case EndKind::kRuntimeDied: out.reason = Reason::kRuntimeDied; break;
      case EndKind::kAgentUnreachable: out.reason = Reason::kAgentUnreachable; break;
    }
  }
  out.state = model::terminal_state(out.reason);
  return out;
}

Supervised supervise(RunningCell& cell, OutputSink& sink, const SuperviseOptions& options) {
  const model::JobSpec& spec = options.spec;
  const BootTime started = cell.started();
  const BootTime deadline = started + spec.active_deadline;
  const BootTime last = deadline + spec.termination_grace;

  Supervised result;
  result.deadline.set = deadline;

  // The watchdog's kill. It works while this thread is busy and while containerd hangs.
  std::atomic<std::int64_t> fired_ns{0};
  std::optional<Watchdog::Lease> lease;
  if (auto target = cell.kill_target(); target.ok()) {
    auto armed = options.watchdog.arm(last + kWatchdogSlack, std::move(target).value(),
                                      [&fired_ns](BootTime at) { fired_ns.store(at.ns); });
    if (armed.ok()) {
      lease = std::move(armed).value();
    } else {
      base::log::error("step=arm-watchdog error=" + base::log::quoted(armed.error().message()) +
                       ", ending the cell now");
    }
  }
  // A cell that cannot be watched is not let run: the ladder below starts at once.
  std::optional<BootTime> stopping;  // since when
  BootTime kill_at{};
  std::optional<BootTime> killed_at;
  std::vector<std::string> ladder;
  const auto begin_stopping = [&](std::string_view cause) {
    stopping = BootTime::now();
    kill_at = std::min(*stopping + spec.termination_grace, last);
    ladder.push_back(ladder_step("TERM", started, *stopping));
    options.on_stopping(cause);
    if (auto status = cell.signal(spec.stop_signal); !status.ok()) {
      base::log::warn("step=stop error=" + base::log::quoted(status.error().message()) + ", the kill follows");
      kill_at = BootTime::now();
    }
  };
  const auto kill = [&] {
    killed_at = BootTime::now();
    ladder.push_back(ladder_step("KILL", started, *killed_at));
    if (lease.has_value()) {
      lease->kill_now();
    } else if (auto target = cell.kill_target(); target.ok()) {
      (void)kill_all(*target);  // what survives shows in end() and in the scan
    }
  };
  if (!lease.has_value()) {
    begin_stopping("unwatched");
    kill();
  }

  std::vector<pollfd> polls;
  while (!cell.end().has_value()) {
    const BootTime now = BootTime::now();
    if (!stopping.has_value() && options.cancel.cause() != CancelCause::kNone) {
      begin_stopping("cancelled");
    }
    if (stopping.has_value() && !killed_at.has_value() && now >= kill_at) {
      kill();
    }
    const bool overdue = now >= last + kWatchdogSlack + kKillSlack;
    if (overdue || (killed_at.has_value() && now >= *killed_at + kKillSlack)) {
      break;  // teardown and scan tell what is left
    }
    polls.clear();
    cell.poll_on(polls);
    if (!stopping.has_value()) {
      polls.push_back({options.cancel.fd(), POLLIN, 0});
    }
    BootTime wake = last + kWatchdogSlack + kKillSlack;
    if (stopping.has_value()) {
      wake = killed_at.has_value() ? *killed_at + kKillSlack : kill_at;
    }
    const auto budget = base::Deadline::after(std::max(base::Nanoseconds(0), wake - BootTime::now()));
    (void)::poll(polls.data(), polls.size(), budget.poll_timeout_ms());  // EINTR and time-outs lead to another round
    cell.service(sink);
  }

  const std::int64_t fired = fired_ns.load();
  LaneEnd end = cell.end().value_or(LaneEnd{.kind = EndKind::kVmmDied,
                                            .value = 0,
                                            .message = "the cell did not end after it was killed",
                                            .limits = {},
                                            .deadline_fired = std::nullopt,
                                            .ladder = {},
                                            .ended = BootTime::now()});
  result.outcome = outcome_of(end, {.cancel = options.cancel.cause(),
                                    .stopping_since = stopping,
                                    .watchdog_fired = fired != 0 ? std::optional(BootTime{fired}) : std::nullopt,
                                    .deadline = deadline});
  result.limits = end.limits;
  result.deadline.ladder = ladder;
  for (const std::string& s : end.ladder) {
    result.deadline.ladder.push_back(s);
  }
  if (fired != 0) {
    result.deadline.ladder.push_back(ladder_step("WATCHDOG", started, BootTime{fired}));
  }
  if (end.deadline_fired.has_value()) {
    result.deadline.fired_at = end.deadline_fired;
  } else if (fired != 0) {
    result.deadline.fired_at = BootTime{fired};
  }
  if (result.outcome.reason == Reason::kDeadlineExceeded && !result.deadline.fired_at.has_value()) {
    result.deadline.fired_at = deadline;
  }
  if (result.outcome.reason == Reason::kDeadlineExceeded && end.ended > last) {
    result.deadline.overrun_ms = (end.ended - last).count() / 1'000'000;
  }
  if (cell.end().has_value()) {
    result.ended = end.ended;
  }
  result.revoked = std::move(end.revoked);
  return result;
}

}  // namespace cellrund::cell
