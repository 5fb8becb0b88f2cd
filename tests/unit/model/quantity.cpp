#include "model/quantity.hpp"

#include <doctest/doctest.h>

#include <string>
#include <utility>
#include <vector>

using namespace cellrund::model;

TEST_CASE("CPU quantities become thousandths") {
  const std::vector<std::pair<const char*, std::uint64_t>> good = {
      {"1", 1000}, {"0", 0}, {"500m", 500}, {"0.5", 500}, {"1.250", 1250}, {"0.001", 1}, {"256", 256000}, {"0m", 0}};
  for (const auto& [text, millis] : good) {
    CAPTURE(text);
    CHECK(parse_cpu_millis(text) == millis);
  }
}

TEST_CASE("byte quantities become bytes") {
  const std::vector<std::pair<const char*, std::uint64_t>> good = {
      {"0", 0}, {"1048576", 1048576}, {"1Mi", 1048576}, {"0.5Gi", 536870912}, {"10M", 10000000}, {"1k", 1000},
      {"1Ki", 1024}, {"2Ti", 2199023255552}, {"1.5Ki", 1536}, {"9007199254740992", 9007199254740992}};
  for (const auto& [text, bytes] : good) {
    CAPTURE(text);
    CHECK(parse_bytes(text) == bytes);
  }
}

TEST_CASE("what is no quantity is refused") {
  for (const char* text : {"", "m", "-1", "+1", " 1", "1 ", "01", "00", "1.", ".5", "1e3", "1E3", "0x10", "1,5", "1.0001",
                           "0.5m", "1mm", "1Mi", "9007199254740993", "99999999999999999999999999999999999999", "NaN", "1\n"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_cpu_millis(text).has_value());
  }
  for (const char* text : {"", "Mi", "-1Mi", "1mi", "1MI", "1MiB", "1KB", "1m", "0.3", "1.1Ki", "1 Mi", "01Mi", "1Ei", "1e6",
                           "9007199254740993", "10000Ti", "1Mi\xe2\x80\x8b"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_bytes(text).has_value());
  }
}

TEST_CASE("a formatted quantity parses back") {
  for (const std::uint64_t n : {0ULL, 1ULL, 999ULL, 1000ULL, 1500ULL, 1024ULL, 268435456ULL, 1073741825ULL}) {
    CHECK(parse_cpu_millis(format_cpu_millis(n)) == n);
    CHECK(parse_bytes(format_bytes(n)) == n);
  }
  CHECK(format_bytes(268435456) == "256Mi");
  CHECK(format_cpu_millis(1500) == "1500m");
}
