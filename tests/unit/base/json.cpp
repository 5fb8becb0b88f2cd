#include "base/json.hpp"

#include <doctest/doctest.h>

using namespace cellrund::base;

TEST_CASE("what other JSON readers disagree about is refused") {
  for (const char* text :
       {"", "{\"a\":1,\"a\":2}", "{\"a\":{\"b\":1,\"\\u0062\":2}}", "1.0", "1e3", "9223372036854775808", "-9223372036854775809",
        "\"\\u0000\"", "{\"\\u0000\":1}", "\"\\ud800\"", "\"\xff\"", "\xEF\xBB\xBF{}", "{} {}", "{}x", "[1,]", "{\"a\":1,}",
        "// c\n{}", "NaN", "'a'", "\"\t\"", "01", "+1"}) {
    CAPTURE(text);
    CHECK_FALSE(json::parse(text, {}).ok());
  }
  CHECK_FALSE(json::parse(std::string("{}\0", 3), {}).ok());
  CHECK_FALSE(json::parse(std::string("{}\0{\"a\":1}", 10), {}).ok());
}

TEST_CASE("depth, size and members are bounded") {
  CHECK(json::parse(std::string(32, '[') + std::string(32, ']'), {}).ok());
  CHECK_FALSE(json::parse(std::string(33, '[') + std::string(33, ']'), {}).ok());
  CHECK_FALSE(json::parse("\"" + std::string(300 * 1024, 'a') + "\"", {}).ok());
  std::string many = "{";
  for (int i = 0; i < 1025; ++i) {
    many += (i == 0 ? "\"" : ",\"") + std::to_string(i) + "\":0";
  }
  CHECK_FALSE(json::parse(many + "}", {}).ok());
}

TEST_CASE("a value is written as it was read, in order") {
  const std::string text = R"({"b":[1,-2,true,null],"a":{"é":"x\n"},"n":9223372036854775807})";
  const auto value = json::parse(text, {});
  REQUIRE(value.ok());
  CHECK(json::write(*value) == text);
}
