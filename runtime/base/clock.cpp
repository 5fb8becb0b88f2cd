#include "base/clock.hpp"

#include <sys/timerfd.h>

#include <algorithm>
#include <climits>
#include <ctime>

#include "base/file.hpp"

namespace cellrund::base {
namespace {

constexpr std::int64_t kNsPerSecond = 1'000'000'000;

std::int64_t read_clock(clockid_t id) noexcept {
  timespec ts{};
  (void)::clock_gettime(id, &ts);  // cannot fail for the fixed clock ids used here
  return ts.tv_sec * kNsPerSecond + ts.tv_nsec;
}

// Days since 1970-01-01 of a proleptic Gregorian date (Howard Hinnant's days_from_civil).
std::int64_t days_from_civil(std::int64_t y, unsigned m, unsigned d) noexcept {
  y -= m <= 2 ? 1 : 0;
  const std::int64_t era = y / 400;
  const auto yoe = static_cast<unsigned>(y - era * 400);
  const unsigned doy = (153 * (m > 2 ? m - 3 : m + 9) + 2) / 5 + d - 1;
  const unsigned doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
  return era * 146097 + static_cast<std::int64_t>(doe) - 719468;
}

itimerspec absolute(BootTime when) noexcept {
  itimerspec spec{};
  // A zero it_value disarms the timer, so a point in the past is armed as the first nanosecond of the boot.
  const std::int64_t ns = std::max<std::int64_t>(when.ns, 1);
  spec.it_value.tv_sec = ns / kNsPerSecond;
  spec.it_value.tv_nsec = ns % kNsPerSecond;
  return spec;
}

}  // namespace

BootTime BootTime::now() noexcept { return {read_clock(CLOCK_BOOTTIME)}; }

Deadline Deadline::after(Nanoseconds budget) noexcept {
  return Deadline(read_clock(CLOCK_MONOTONIC) + budget.count());
}

Nanoseconds Deadline::remaining() const noexcept {
  return Nanoseconds(std::max<std::int64_t>(0, monotonic_ns_ - read_clock(CLOCK_MONOTONIC)));
}

int Deadline::poll_timeout_ms() const noexcept {
  const std::int64_t ms = (remaining().count() + 999'999) / 1'000'000;
  return static_cast<int>(std::min<std::int64_t>(ms, INT_MAX));
}

WallTime WallTime::now() noexcept {
  const std::int64_t ns = read_clock(CLOCK_REALTIME);
  return {ns / kNsPerSecond, static_cast<std::int32_t>(ns % kNsPerSecond)};
}

std::string format_rfc3339(WallTime t, bool millis) {
  const time_t seconds = t.seconds;
  tm parts{};
  (void)::gmtime_r(&seconds, &parts);
  std::array<char, 40> buffer{};
  const std::size_t n = std::strftime(buffer.data(), buffer.size(), "%Y-%m-%dT%H:%M:%S", &parts);
  std::string out(buffer.data(), n);
  if (millis) {
    std::string ms = std::to_string(t.nanos / 1'000'000);
    out += "." + std::string(3 - ms.size(), '0') + ms;
  }
  return out + "Z";
}

Result<WallTime> parse_rfc3339(std::string_view text) {
  const auto bad = [&] {
    return Error(Errc::kInvalidArgument, "time is not RFC 3339 UTC like 2026-11-21T10:00:00Z");
  };
  // YYYY-MM-DDTHH:MM:SS[.fraction]Z
  if (text.size() < 20 || text.size() > 30 || text[4] != '-' || text[7] != '-' || text[10] != 'T' ||
      text[13] != ':' || text[16] != ':' || text.back() != 'Z') {
    return bad();
  }
  const auto digits = [&](std::size_t at, std::size_t n) -> int {
    int value = 0;
    for (std::size_t i = at; i < at + n; ++i) {
      if (text[i] < '0' || text[i] > '9') {
        return -1;
      }
      value = value * 10 + (text[i] - '0');
    }
    return value;
  };
  const int year = digits(0, 4);
  const int month = digits(5, 2);
  const int day = digits(8, 2);
  const int hour = digits(11, 2);
  const int minute = digits(14, 2);
  const int second = digits(17, 2);
  if (year < 1970 || month < 1 || month > 12 || day < 1 || hour < 0 || hour > 23 || minute < 0 || minute > 59 ||
      second < 0 || second > 59) {  // leap seconds are not representable on CLOCK_REALTIME
    return bad();
  }
  const bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
  constexpr std::array<int, 12> kDays{31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  if (day > kDays[static_cast<std::size_t>(month - 1)] + (month == 2 && leap ? 1 : 0)) {
    return bad();
  }
  std::int32_t nanos = 0;
  if (text.size() > 20) {
    if (text[19] != '.' || text.size() < 22) {
      return bad();
    }
    const std::size_t n = text.size() - 21;
    const int fraction = digits(20, n);
    if (n > 9 || fraction < 0) {
      return bad();
    }
    nanos = fraction;
    for (std::size_t i = n; i < 9; ++i) {
      nanos *= 10;
    }
  }
  const std::int64_t days = days_from_civil(year, static_cast<unsigned>(month), static_cast<unsigned>(day));
  return WallTime{days * 86400 + hour * 3600 + minute * 60 + second, nanos};
}

Result<UniqueFd> boot_timer(BootTime when) {
  UniqueFd fd(::timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!fd) {
    return Error::from_errno("timerfd_create");
  }
  CR_CHECK(rearm_boot_timer(fd.get(), when));
  return fd;
}

Status rearm_boot_timer(int timer_fd, BootTime when) {
  const itimerspec spec = absolute(when);
  if (::timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &spec, nullptr) != 0) {
    return Error::from_errno("timerfd_settime");
  }
  return ok();
}

Status disarm_timer(int timer_fd) {
  const itimerspec spec{};
  if (::timerfd_settime(timer_fd, 0, &spec, nullptr) != 0) {
    return Error::from_errno("timerfd_settime");
  }
  return ok();
}

Result<std::string> boot_id() {
  std::string text = CR_TRY(read_file("/proc/sys/kernel/random/boot_id", 64));
  while (!text.empty() && text.back() == '\n') {
    text.pop_back();
  }
  return text;
}

}  // namespace cellrund::base
