#include <doctest/doctest.h>

#include "shim/guest/timer_check.hpp"

using cellrund::guest::clock_event_hz;

namespace {

// As Linux 6.1 prints it in an emulated guest.
constexpr const char* kTimerList =
    "Timer List Version: v0.9\nHRTIMER_MAX_CLOCK_BASES: 8\n\nTick Device: mode:     1\nBroadcast device\n"
    "Clock Event Device: <NULL>\n\nTick Device: mode:     1\nPer CPU device: 0\nClock Event Device: lapic\n"
    " max_delta_ns:   34359738366\n min_delta_ns:   1000\n mult:           268435456\n shift:          32\n mode:           3\n";

}  // namespace

TEST_CASE("the frequency of a clock event device is read from the timer list") {
  CHECK(clock_event_hz(kTimerList, "lapic") == 62'500'000);
  CHECK(clock_event_hz(kTimerList, "pit") == 0);
  CHECK(clock_event_hz("", "lapic") == 0);
  CHECK(clock_event_hz("Clock Event Device: lapic\n mult: x\n", "lapic") == 0);
  CHECK(clock_event_hz("Clock Event Device: lapic\n mult: 99999999999\n shift: 32\n", "lapic") == 0);
  CHECK(clock_event_hz("Clock Event Device: lapic\n mult: 1\n shift: 64\n", "lapic") == 0);
}
