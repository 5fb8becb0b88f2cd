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

TEST_CASE("host names are full names, and no addresses") {
  for (const char* good : {"example.com", "a.b", "api-1.example.com", "xn--bcher-kva.example", "1.example"}) {
    CAPTURE(good);
    CHECK(job::is_dns_name(good));
  }
  for (const std::string& bad : {std::string(), std::string("localhost"), std::string("example.com."), std::string(".com"), std::string("a..b"),
                                 std::string("-a.b"), std::string("a-.b"), std::string("A.example"), std::string("a_b.example"), std::string("1.2.3.4"),
                                 std::string("*.example.com"), std::string("a b.example"), std::string("b\xc3\xbc.example"), std::string(64, 'a') + ".b",
                                 std::string(252, 'a') + ".b"}) {
    CAPTURE(bad);
    CHECK_FALSE(job::is_dns_name(bad));
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
