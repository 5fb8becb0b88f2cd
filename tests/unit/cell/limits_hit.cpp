#include "cell/limits_hit.hpp"

#include <doctest/doctest.h>

using namespace cellrund;
using model::LimitFacts;
using model::Outcome;
using model::Reason;

namespace {

Outcome outcome(Reason reason) {
  return {.state = model::terminal_state(reason), .reason = reason, .exit_code = {}, .signal = {}, .message = {}};
}

}  // namespace

TEST_CASE("a job that failed by itself is told the limit that it ran against, the host's word first") {
  const LimitFacts all{.host_oom_kills = 1, .host_pids_refused = 1, .memory = true, .pids = true, .disk = true};
  const struct {
    LimitFacts hit;
    Reason expected;
  } cases[] = {
      {{}, Reason::kError},
      {all, Reason::kOomKilledHost},
      {{.memory = true, .pids = true, .disk = true}, Reason::kOomKilledGuest},
      {{.host_pids_refused = 3, .disk = true}, Reason::kPidsExhausted},
      {{.pids = true}, Reason::kPidsExhausted},
      {{.disk = true}, Reason::kDiskQuotaExceeded},
  };
  for (const auto& c : cases) {
    const Outcome told = cell::with_limits(outcome(Reason::kError), c.hit);
    CAPTURE(model::to_string(c.expected));
    CHECK(told.reason == c.expected);
    CHECK(told.state == model::State::kFailed);
    CHECK(told.message.empty() == (c.expected == Reason::kError));
  }
  CHECK(cell::with_limits(outcome(Reason::kSignaled), {.memory = true}).reason == Reason::kOomKilledGuest);
}

TEST_CASE("a cell that broke down is blamed on the host's memory limit alone") {
  for (const Reason reason : {Reason::kVmmCrashed, Reason::kAgentUnreachable, Reason::kVmmStartFailed}) {
    CHECK(cell::with_limits(outcome(reason), {.host_oom_kills = 1}).reason == Reason::kOomKilledHost);
    CHECK(cell::with_limits(outcome(reason), {.host_pids_refused = 1, .memory = true, .pids = true, .disk = true}).reason == reason);
  }
}

TEST_CASE("success, cancellation and deadline are not rewritten") {
  const LimitFacts all{.host_oom_kills = 1, .host_pids_refused = 1, .memory = true, .pids = true, .disk = true};
  for (const Reason reason : {Reason::kCompleted, Reason::kDeadlineExceeded, Reason::kCancelledByUser, Reason::kShimDied,
                              Reason::kLogLimitExceeded, Reason::kEgressUnproven}) {
    CHECK(cell::with_limits(outcome(reason), all).reason == reason);
  }
}

TEST_CASE("a peak that nothing counts is absent, not zero") {
  CHECK_FALSE(cell::peak_of({}).has_value());
  const auto peak = cell::peak_of({.memory_peak_bytes = 4096, .pids_peak = {}, .cpu_usage_us = 7});
  REQUIRE(peak.has_value());
  CHECK(peak->memory_bytes == 4096);
  CHECK(peak->cpu_usec == 7);
}
