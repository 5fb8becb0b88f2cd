#include "cell/supervise.hpp"

#include <doctest/doctest.h>
#include <signal.h>

using namespace cellrund;
using namespace std::chrono_literals;
using cell::CancelCause;
using cell::EndKind;
using cell::LaneEnd;
using model::Reason;

namespace {

// A cell that is one ordinary process; `obeys` says whether a signal from the ladder reaches it.
class OneProcess final : public cell::RunningCell {
 public:
  OneProcess(std::vector<std::string> argv, bool obeys) : obeys_(obeys), started_(base::BootTime::now()) {
    auto child = base::spawn({.argv = std::move(argv)});
    REQUIRE(child.ok());
    process_ = std::move(child).value();
  }
  void poll_on(std::vector<pollfd>& polls) const override { polls.push_back({process_.fd(), POLLIN, 0}); }
  void service(cell::OutputSink& /*sink*/) override {
    auto exit = process_.reap(base::Deadline::after(0ns));
    if (!exit.ok() || !exit->has_value()) {
      return;
    }
    end_ = LaneEnd{.kind = (*exit)->signaled ? EndKind::kSignaled : EndKind::kExited,
                   .value = (*exit)->value, .message = {}, .deadline_fired = {}, .ladder = {}, .ended = base::BootTime::now()};
  }
  const std::optional<LaneEnd>& end() const override { return end_; }
  base::Status signal(int signo) override { return obeys_ ? process_.signal(signo) : base::ok(); }
  base::Result<cell::KillTarget> kill_target() const override {
    cell::KillTarget target;
    target.processes.push_back(CR_TRY(base::PidFd::open(process_.id())));
    return target;
  }
  base::BootTime started() const override { return started_; }
  model::LaneFacts facts() const override { return {}; }

 private:
  base::PidFd process_;
  bool obeys_;
  base::BootTime started_;
  std::optional<LaneEnd> end_;
};

class Nowhere final : public cell::OutputSink {
 public:
  void write(cell::Stream /*stream*/, base::BytesView /*bytes*/) override {}
};

struct Run {
  cell::Supervised result;
  std::vector<std::string> stopping;
};

Run run(cell::RunningCell& running, std::chrono::seconds deadline, std::chrono::seconds grace, CancelCause cancelled) {
  auto watchdog = cell::Watchdog::start();
  auto cancel = cell::CancelFlag::create();
  REQUIRE(watchdog.ok());
  REQUIRE(cancel.ok());
  if (cancelled != CancelCause::kNone) {
    (*cancel)->raise(cancelled);
  }
  model::JobSpec spec;
  spec.active_deadline = deadline;
  spec.termination_grace = grace;
  Nowhere sink;
  Run out;
  out.result = cell::supervise(running, sink,
                               {.spec = spec, .watchdog = **watchdog, .cancel = **cancel,
                                .on_stopping = [&](std::string_view cause) { out.stopping.emplace_back(cause); }});
  return out;
}

}  // namespace

TEST_CASE("an ordinary end is the workload's own") {
  OneProcess running({"/bin/sh", "-c", "exit 42"}, true);
  const Run done = run(running, 3600s, 5s, CancelCause::kNone);
  CHECK(done.result.outcome.reason == Reason::kError);
  CHECK(done.result.outcome.exit_code == 42);
  CHECK(done.result.outcome.state == model::State::kFailed);
  CHECK(done.stopping.empty());
  CHECK(done.result.deadline.ladder.empty());
}

TEST_CASE("the watchdog ends what its lane does not end") {
  OneProcess running({"/bin/sleep", "1000"}, false);
  const Run done = run(running, 0s, 0s, CancelCause::kNone);
  CHECK(done.result.outcome.reason == Reason::kDeadlineExceeded);
  CHECK(done.result.outcome.state == model::State::kTimedOut);
  REQUIRE(done.result.deadline.fired_at.has_value());
  CHECK(*done.result.deadline.fired_at >= *done.result.deadline.set);
}

TEST_CASE("a cancelled cell that takes its signal ends by it") {
  OneProcess running({"/bin/sleep", "1000"}, true);
  const Run done = run(running, 3600s, 3600s, CancelCause::kUser);
  CHECK(done.result.outcome.reason == Reason::kCancelledByUser);
  CHECK(done.stopping == std::vector<std::string>{"cancelled"});
  REQUIRE(done.result.deadline.ladder.size() == 1);
  CHECK(done.result.deadline.ladder[0].starts_with("TERM@"));
}

TEST_CASE("a cancelled cell that ignores its signal is killed after the grace period") {
  OneProcess running({"/bin/sleep", "1000"}, false);
  const Run done = run(running, 3600s, 0s, CancelCause::kOperator);
  CHECK(done.result.outcome.reason == Reason::kKilledByOperator);
  REQUIRE(done.result.deadline.ladder.size() == 2);
  CHECK(done.result.deadline.ladder[1].starts_with("KILL@"));
}

TEST_CASE("the first cause wins: deadline or cancellation, then the lane's account") {
  using Time = std::optional<base::BootTime>;
  struct Row {
    LaneEnd end;
    cell::Causes causes;
    Reason reason;
  };
  const auto end = [](EndKind kind, int value, Time deadline_fired = {}) {
    return LaneEnd{.kind = kind, .value = value, .message = {}, .deadline_fired = deadline_fired,
                   .ladder = {}, .ended = {}};
  };
  const auto at = [](std::int64_t ns) { return Time(base::BootTime{ns}); };
  const std::vector<Row> rows{
      {end(EndKind::kExited, 0), {}, Reason::kCompleted},
      {end(EndKind::kExited, 1), {}, Reason::kError},
      {end(EndKind::kSignaled, 11), {}, Reason::kSignaled},
      {end(EndKind::kSignaled, 9), {}, Reason::kSignaled},
      {end(EndKind::kExecFailed, 127), {}, Reason::kError},
      {end(EndKind::kVmmDied, 0), {}, Reason::kVmmCrashed},
      {end(EndKind::kShimDied, 0), {}, Reason::kShimDied},
      {end(EndKind::kRuntimeDied, 0), {}, Reason::kRuntimeDied},
      {end(EndKind::kAgentUnreachable, 0), {}, Reason::kAgentUnreachable},
      {end(EndKind::kVmmDied, 0), {CancelCause::kUser, at(5), {}}, Reason::kCancelledByUser},
      {end(EndKind::kVmmDied, 0), {CancelCause::kShutdown, at(5), {}}, Reason::kNodeShutdown},
      {end(EndKind::kExited, 0), {CancelCause::kUser, {}, {}}, Reason::kCompleted},  // it came too late
      {end(EndKind::kVmmDied, 0), {CancelCause::kUser, at(5), at(4)}, Reason::kDeadlineExceeded},
      {end(EndKind::kVmmDied, 0), {CancelCause::kUser, at(5), at(6)}, Reason::kCancelledByUser},
      {end(EndKind::kExited, 0, at(1)), {CancelCause::kUser, at(5), {}}, Reason::kDeadlineExceeded},
      {end(EndKind::kExited, 0, at(9)), {CancelCause::kUser, at(5), {}}, Reason::kCancelledByUser},
      {end(EndKind::kExited, 0, at(1)), {}, Reason::kDeadlineExceeded},
      {end(EndKind::kVmmDied, 0), {CancelCause::kUser, at(5), {}, at(4)}, Reason::kDeadlineExceeded},  // killed without a word
      {end(EndKind::kVmmDied, 0), {CancelCause::kUser, at(5), {}, at(6)}, Reason::kCancelledByUser},
  };
  for (const Row& row : rows) {
    CAPTURE(static_cast<int>(row.end.kind));
    CAPTURE(to_string(row.reason));
    CHECK(cell::outcome_of(row.end, row.causes).reason == row.reason);
  }
}
