#include "model/ipv4.hpp"

#include <doctest/doctest.h>

#include "model/address_ranges.hpp"

using namespace cellrund::model;

TEST_CASE("IPv4 addresses have one spelling") {
  CHECK(*parse_ipv4("198.51.100.7") == 0xc6336407);
  CHECK(*parse_ipv4("0.0.0.0") == 0);
  CHECK(*parse_ipv4("255.255.255.255") == 0xffffffff);
  CHECK(format_ipv4(0xc6336407) == "198.51.100.7");
  for (const char* bad : {"", "1", "1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4", "1.2.3.4 ", " 1.2.3.4", "1.2.3.4/32", "1..2.3", "a.b.c.d", "1.2.3.-4",
                          "1.2.3.4\n", "0x1.2.3.4", "1.2.3.", "::1", "::ffff:1.2.3.4", "1.2.3.4.", "16909060", "1.2.3.0004"}) {
    CAPTURE(bad);
    CHECK_FALSE(parse_ipv4(bad).ok());
  }
}

TEST_CASE("prefixes are read strictly, and the message says what is wrong") {
  for (const char* good : {"0.0.0.0/0", "10.0.0.0/8", "203.0.113.0/24", "198.51.100.7/32", "128.0.0.0/1"}) {
    const auto prefix = parse_ipv4_prefix(good);
    REQUIRE(prefix.ok());
    CHECK(prefix->text() == good);
  }
  struct Row {
    const char *text, *why;
  };
  for (const auto& [text, why] : {Row{"10.0.0.1/8", "host bits set, write 10.0.0.0/8"}, Row{"10.0.0.0/33", "between 0 and 32"}, Row{"10.0.0.0/08", "between 0 and 32"},
                                  Row{"10.0.0.0/", "between 0 and 32"}, Row{"10.0.0.0/-1", "between 0 and 32"}, Row{"10.0.0.0/8 ", "between 0 and 32"},
                                  Row{"10.0.0.0", "write 10.0.0.0/32"}, Row{"::ffff:10.0.0.1/128", "IPv6"}, Row{"::/0", "IPv6"}, Row{"10.0.0/8", "no IPv4 range"},
                                  Row{"example.com/24", "no IPv4 range"}, Row{"", "no IPv4 range"}, Row{"0.0.0.1/0", "write 0.0.0.0/0"}}) {
    CAPTURE(text);
    const auto prefix = parse_ipv4_prefix(text);
    REQUIRE_FALSE(prefix.ok());
    CHECK(prefix.error().message().find(why) != std::string::npos);
  }
}

TEST_CASE("prefixes hold what begins like them") {
  const Ipv4Prefix ten{0x0a000000, 8};
  const Ipv4Prefix part{0x0a020000, 16};
  CHECK(ten.contains(part));
  CHECK_FALSE(part.contains(ten));
  CHECK(part.overlaps(ten));
  CHECK_FALSE(part.overlaps(Ipv4Prefix{0x0a030000, 16}));
  CHECK(Ipv4Prefix{}.contains(0xffffffff));
  CHECK(Ipv4Prefix{0xffffffff, 32}.contains(0xffffffff));
}

TEST_CASE("the ranges of the tables are well-formed") {
  for (const AddressRange& range : kNeverReached) {
    CHECK((range.prefix.address & ~range.prefix.mask()) == 0);
  }
  for (const AddressRange& range : kPrivateRanges) {
    CHECK((range.prefix.address & ~range.prefix.mask()) == 0);
    for (const AddressRange& never : kNeverReached) {
      CHECK_FALSE(range.prefix.overlaps(never.prefix));
    }
  }
}
