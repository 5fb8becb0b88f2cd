// Time. Job deadlines live on CLOCK_BOOTTIME (they keep running in suspend, and no wall clock step moves
// them); waits for peers live on CLOCK_MONOTONIC; wall time is only for people and for signed validity.
#pragma once

#include <chrono>
#include <compare>
#include <cstdint>
#include <string>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace cellrund::base {

using Nanoseconds = std::chrono::nanoseconds;

// A point on CLOCK_BOOTTIME, as nanoseconds since boot.
struct BootTime {
  std::int64_t ns = 0;
  static BootTime now() noexcept;
  friend auto operator<=>(BootTime, BootTime) = default;
};
inline BootTime operator+(BootTime t, Nanoseconds d) noexcept { return {t.ns + d.count()}; }
inline Nanoseconds operator-(BootTime a, BootTime b) noexcept { return Nanoseconds(a.ns - b.ns); }

// An absolute point on CLOCK_MONOTONIC by which a wait must end. Passed down the stack instead of durations,
// so that nested waits share one budget.
class Deadline {
 public:
  static Deadline after(Nanoseconds budget) noexcept;
  [[nodiscard]] bool expired() const noexcept { return remaining().count() <= 0; }
  // Never negative.
  [[nodiscard]] Nanoseconds remaining() const noexcept;
  // For poll(2) and epoll_wait(2): rounded up, at least 0, at most INT_MAX.
  [[nodiscard]] int poll_timeout_ms() const noexcept;
  [[nodiscard]] std::int64_t monotonic_ns() const noexcept { return monotonic_ns_; }

 private:
  explicit Deadline(std::int64_t ns) noexcept : monotonic_ns_(ns) {}
  std::int64_t monotonic_ns_;
};

// Wall clock, seconds and nanoseconds since the epoch (CLOCK_REALTIME).
struct WallTime {
  std::int64_t seconds = 0;
  std::int32_t nanos = 0;
  static WallTime now() noexcept;
  friend auto operator<=>(WallTime, WallTime) = default;
};

// RFC 3339 in UTC: "2026-11-21T10:00:00Z", or with milliseconds "2026-11-21T10:00:00.123Z".
[[nodiscard]] std::string format_rfc3339(WallTime t, bool millis = false);
// Strict RFC 3339 UTC ('Z' only, years 1970-9999, up to 9 fraction digits). kInvalidArgument otherwise.
Result<WallTime> parse_rfc3339(std::string_view text);

// timerfd on CLOCK_BOOTTIME, armed absolutely; becomes readable at `when` (timerfd_create(2)).
Result<UniqueFd> boot_timer(BootTime when);
Status rearm_boot_timer(int timer_fd, BootTime when);
Status disarm_timer(int timer_fd);

// /proc/sys/kernel/random/boot_id, 36 characters.
Result<std::string> boot_id();

}  // namespace cellrund::base
