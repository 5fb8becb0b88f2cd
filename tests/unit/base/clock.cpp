#include "base/clock.hpp"
#include "base/file.hpp"

#include <doctest/doctest.h>

using namespace cellrund::base;

TEST_CASE("an RFC 3339 time survives a round trip") {
  const auto t = parse_rfc3339("2026-11-21T10:00:00Z");
  REQUIRE(t.ok());
  CHECK(t->seconds == 1795255200);
  CHECK(format_rfc3339(*t) == "2026-11-21T10:00:00Z");
  const auto leap = parse_rfc3339("2024-02-29T23:59:59.5Z");
  REQUIRE(leap.ok());
  CHECK(format_rfc3339(*leap, true) == "2024-02-29T23:59:59.500Z");
}

TEST_CASE("times that are not strict RFC 3339 UTC are refused") {
  for (const char* text : {"", "2026-11-21", "2026-11-21T10:00:00", "2026-11-21T10:00:00+00:00", "2026-02-29T10:00:00Z",
                           "2026-13-01T10:00:00Z", "2026-11-21T24:00:00Z", "2026-11-21T10:00:60Z", "2026-11-21 10:00:00Z",
                           "2026-11-21T10:00:00.Z", "2026-11-21T10:00:00.1234567890Z", "1969-12-31T23:59:59Z"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_rfc3339(text).ok());
  }
}

TEST_CASE("a boot timer in the past is readable at once") {
  const auto timer = boot_timer(BootTime{1});
  REQUIRE(timer.ok());
  const auto ready = wait_readable(timer->get(), Deadline::after(std::chrono::seconds(5)));
  REQUIRE(ready.ok());
  CHECK(*ready);
}
