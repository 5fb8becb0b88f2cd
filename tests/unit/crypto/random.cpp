#include "crypto/random.hpp"

#include <doctest/doctest.h>

#include <set>

using namespace cellrund;

TEST_CASE("a UUIDv7 carries its time and is never the same twice") {
  // RFC 9562 appendix A.6: 2022-02-22T19:22:22Z is 017F22E2-79B0-7…
  std::set<std::string> seen;
  for (int i = 0; i < 1000; ++i) {
    const auto uuid = crypto::uuid_v7({1645557742, 0});
    REQUIRE(uuid.ok());
    CHECK(crypto::is_uuid_v7(*uuid));
    CHECK(uuid->starts_with("017f22e2-79b0-7"));
    CHECK(seen.insert(*uuid).second);
  }
}

TEST_CASE("what is no lower-case UUIDv7 is told apart") {
  CHECK(crypto::is_uuid_v7("0199c1f2-7b1e-7c3a-9d2e-2f4b6a8c0e11"));
  for (const char* bad : {"", "0199C1F2-7b1e-7c3a-9d2e-2f4b6a8c0e11", "0199c1f2-7b1e-4c3a-9d2e-2f4b6a8c0e11",
                          "0199c1f2-7b1e-7c3a-cd2e-2f4b6a8c0e11", "0199c1f27b1e7c3a9d2e2f4b6a8c0e11",
                          "0199c1f2-7b1e-7c3a-9d2e-2f4b6a8c0e1", "{0199c1f2-7b1e-7c3a-9d2e-2f4b6a8c0e1",
                          "0199c1f2-7b1e-7c3a-9d2e-2f4b6a8c0e11 ", "../../../../../../../../../../etc/passwd"}) {
    CAPTURE(bad);
    CHECK_FALSE(crypto::is_uuid_v7(bad));
  }
}
