#include "admit/glob.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

using namespace cellrund;

TEST_CASE("patterns match as their documentation says") {
  struct Row {
    const char *pattern, *text;
    bool matches;
  };
  for (const auto& [pattern, text, matches] : std::vector<Row>{
           {"registry.example/agents/*", "registry.example/agents/python", true},
           {"registry.example/agents/*", "registry.example/agents/a/b", false},
           {"registry.example/agents/**", "registry.example/agents/a/b", true},
           {"registry.example/agents/*", "registry.example/agents/", true},
           {"registry.example/agents/*", "registry.example/agentsX/a", false},
           {"registry.example/*", "registry.example.evil/agents", false},
           {"registry?example/a", "registry.example/a", false},
           {"*", "anything/at/all", true}, {"*", "", true}, {"**", "a/b", true}, {"", "", true}, {"", "a", false},
           {"a*", "a", true}, {"a*c", "abbc", true}, {"a*c", "abbcd", false}, {"*a", "bba", true}, {"*a*", "bab", true}, {"a", "A", false},
           {"agent:*", "agent:fixer-7", true}, {"agent:*", "service:x", false}, {"*/b", "a/b", true}, {"*/b", "x/a/b", false}}) {
    CAPTURE(pattern);
    CAPTURE(text);
    CHECK(admit::glob_match(pattern, text) == matches);
  }
}

TEST_CASE("no pattern makes matching slow") {
  std::string pattern;
  for (int i = 0; i < 64; ++i) {
    pattern += "*a";
  }
  CHECK_FALSE(admit::glob_match(pattern + "b", std::string(256, 'a')));
}
