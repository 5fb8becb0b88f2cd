#include "shim/tsc.hpp"

#include <cpuid.h>
#include <poll.h>
#include <time.h>
#include <x86intrin.h>

#include <limits>

namespace cellrund::shim {
namespace {

struct Sample {
  std::uint64_t ticks = 0;
  std::int64_t ns = 0;
};

// The counter and the clock as of one moment: of a few tries the one in which least time passed between the readings.
Sample sample() noexcept {
  Sample best;
  std::uint64_t shortest = std::numeric_limits<std::uint64_t>::max();
  for (int i = 0; i < 8; ++i) {
    timespec now{};
    const std::uint64_t before = __rdtsc();
    (void)::clock_gettime(CLOCK_MONOTONIC_RAW, &now);
    const std::uint64_t after = __rdtsc();
    if (after - before < shortest) {
      shortest = after - before;
      best = {before + (after - before) / 2, now.tv_sec * 1'000'000'000LL + now.tv_nsec};
    }
  }
  return best;
}

}  // namespace

std::uint64_t measure_tsc_khz() noexcept {
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  constexpr unsigned kInvariantTsc = 1U << 8U;
  if (__get_cpuid(0x80000007U, &eax, &ebx, &ecx, &edx) == 0 || (edx & kInvariantTsc) == 0) {
    return 0;
  }
  const Sample first = sample();
  (void)::poll(nullptr, 0, 20);  // any interval does
  const Sample second = sample();
  const auto elapsed = static_cast<std::uint64_t>(second.ns - first.ns);
  return elapsed == 0 ? 0 : (second.ticks - first.ticks) * 1'000'000ULL / elapsed;
}

}  // namespace cellrund::shim
