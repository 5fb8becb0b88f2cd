// Until: how long a wait may last: a deadline, and a stop that may come before it. A Deadline alone is one without a stop.
#pragma once

#include <algorithm>
#include <stop_token>
#include <utility>

#include "base/clock.hpp"

namespace cellrund::base {

struct Until {
  Until(Deadline until) : deadline(until) {}  // NOLINT(google-explicit-constructor): most waits have no stop
  Until(Deadline until, std::stop_token stop_token) : deadline(until), stop(std::move(stop_token)) {}

  // The same with at most `budget` from now.
  [[nodiscard]] Until capped(Nanoseconds budget) const {
    return {Deadline::after(std::min(budget, deadline.remaining())), stop};
  }
  [[nodiscard]] bool stopped() const noexcept { return stop.stop_requested(); }

  Deadline deadline;
  std::stop_token stop;
};

}  // namespace cellrund::base
