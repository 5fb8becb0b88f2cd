#include "job/syntax.hpp"

#include <doctest/doctest.h>

#include <string>

using namespace cellrund;

TEST_CASE("repositories are those of the distribution spec") {
  const std::string pin = "@sha256:" + std::string(64, '0');
  for (const char* good : {"a", "library/busybox", "registry.example/agents/python", "localhost:5000/x", "10.0.0.1:443/a/b", "a__b", "a---b", "a.b_c-d",
                           "cellrun.local/demo"}) {
    CAPTURE(good);
    const auto ref = job::parse_image(good + pin, "f");
    REQUIRE(ref.ok());
    CHECK(ref->text() == good + pin);
  }
  for (const char* bad : {"", "/a", "a/", "a//b", "A", "registry.example/Agents", "a..b", "a___b", "-a", "a-", ".a", "a b", "a\n", "../a", "a/../b",
                          "registry.example:port/a", "registry.example:/a", "r\xc3\xa9g/a", "a\xe2\x80\x8b"}) {
    CAPTURE(bad);
    CHECK_FALSE(job::parse_image(bad + pin, "f").ok());
  }
  CHECK_FALSE(job::parse_image(std::string(256, 'a') + pin, "f").ok());
}

TEST_CASE("IPv4 addresses have one spelling") {
  for (const char* good : {"0.0.0.0", "198.51.100.7", "255.255.255.255"}) {
    CHECK(job::is_ipv4(good));
  }
  for (const char* bad : {"", "1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4", "1.2.3.4 ", " 1.2.3.4", "1.2.3.4/32", "1..3.4", "1.2.3.", "0x1.2.3.4",
                          "::1", "::ffff:1.2.3.4", "1.2.3.4.", "16909060", "1.2.3.0004"}) {
    CAPTURE(bad);
    CHECK_FALSE(job::is_ipv4(bad));
  }
}

TEST_CASE("paths are absolute and plain") {
  for (const char* good : {"/", "/a", "/a/b.c", "/a b", "/..."}) {
    CAPTURE(good);
    CHECK(job::is_absolute_path(good));
  }
  for (const char* bad : {"", "a", "./a", "/a/", "//", "/a//b", "/..", "/a/../b", "/.", "/a\n", "/\x7f"}) {
    CAPTURE(bad);
    CHECK_FALSE(job::is_absolute_path(bad));
  }
}

TEST_CASE("capabilities are those of the kernel") {
  CHECK(job::is_capability("CAP_SYS_ADMIN"));
  CHECK(job::is_capability("CAP_CHECKPOINT_RESTORE"));
  for (const char* bad : {"", "CAP_", "SYS_ADMIN", "cap_sys_admin", "CAP_ALL", "ALL"}) {
    CHECK_FALSE(job::is_capability(bad));
  }
}

TEST_CASE("spelling help is given for near names only") {
  job::Speller near("namspace");
  near.offer("name");
  near.offer("namespace");
  CHECK(near.best() == "namespace");
  job::Speller far("x");
  far.offer("to");
  CHECK(far.best().empty());
}
