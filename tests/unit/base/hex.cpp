#include "base/hex.hpp"

#include <doctest/doctest.h>

using namespace cellrund::base;

TEST_CASE("base64 of RFC 4648 section 10 round-trips") {
  for (const auto& [plain, encoded] : {std::pair{"", ""}, {"f", "Zg=="}, {"fo", "Zm8="}, {"foo", "Zm9v"},
                                       {"foob", "Zm9vYg=="}, {"fooba", "Zm9vYmE="}, {"foobar", "Zm9vYmFy"}}) {
    CAPTURE(plain);
    CHECK(to_base64(as_bytes(plain)) == encoded);
    const auto back = from_base64(encoded);
    REQUIRE(back.ok());
    CHECK(as_text(*back) == plain);
  }
}

TEST_CASE("base64 that has two readings is refused") {
  for (const char* text : {"Zg", "Zg=", "Zh==", "Zm9=", "Z", "Zm9v\n", " Zm9v", "+_==", "Zg===", "====", "Zm8=Zm8="}) {
    CAPTURE(text);
    CHECK_FALSE(from_base64(text).ok());
  }
  CHECK(from_base64("-_8").ok());
  CHECK(from_base64("-_8=").ok());
}

TEST_CASE("hexadecimal is lower case and of even length") {
  CHECK(to_hex(as_bytes("\x01\xff")) == "01ff");
  CHECK(from_hex("01ff").ok());
  CHECK_FALSE(from_hex("01FF").ok());
  CHECK_FALSE(from_hex("1").ok());
}
