#include "host/memory_room.hpp"

#include <doctest/doctest.h>

using namespace cellrund;

TEST_CASE("what the kernel says of its memory is read strictly") {
  CHECK(host::parse_available("MemTotal:  100 kB\nMemFree:  10 kB\nMemAvailable:      42 kB\nBuffers: 1 kB\n") == 42 * 1024);
  CHECK(host::parse_available("MemAvailable: 7 kB\n") == 7 * 1024);
  for (const char* bad : {"", "MemAvailable:", "MemAvailable: kB", "MemAvailable: 7\n", "XMemAvailable: 7 kB", "MemAvailable: 99999999999999999999 kB"}) {
    CAPTURE(bad);
    CHECK_FALSE(host::parse_available(bad).has_value());
  }
  CHECK(host::parse_pressure("some avg10=12.34 avg60=0.00 avg300=0.00 total=1\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n") == 12.34);
  for (const char* bad : {"", "full avg10=1.00 avg60=0", "some avg10=", "some avg10=x avg60", "some avg10=-1.00 ", "some avg10=101.00 ", "some avg10=1.00"}) {
    CAPTURE(bad);
    CHECK_FALSE(host::parse_pressure(bad).has_value());
  }
}

TEST_CASE("this host's own files are understood") {
  CHECK(host::memory_state().available_bytes.value_or(0) > 0);
}

TEST_CASE("a cell must wait where it would take the reserve, or where tasks already stall") {
  const host::MemoryBounds bounds{.reserve_bytes = 1000, .pressure_percent = 20};
  CHECK(host::memory_shortage({.available_bytes = 3000, .pressure_percent = 20.0}, bounds, 2000).empty());
  CHECK_FALSE(host::memory_shortage({.available_bytes = 2999, .pressure_percent = 0.0}, bounds, 2000).empty());
  CHECK_FALSE(host::memory_shortage({.available_bytes = 500, .pressure_percent = 0.0}, bounds, 0).empty());
  CHECK_FALSE(host::memory_shortage({.available_bytes = 3000, .pressure_percent = 20.5}, bounds, 1).empty());
  CHECK(host::memory_shortage({.available_bytes = 3000, .pressure_percent = 99.0}, {.reserve_bytes = 1000}, 1).empty());
  CHECK(host::memory_shortage({}, bounds, 1).empty());
}
