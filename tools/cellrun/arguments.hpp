// The command line: a small strict parser. "--name value" and "--name=value" ("--name" and "--name=value" where the value is
// optional), single-letter flags one by one, "--" ends
// the flags. What a command does not list is an error with the nearest known spelling.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "model/outcome.hpp"

namespace cellrund::cli {

struct Flag {
  std::string_view name;        // without dashes
  char letter = 0;              // 0: no short form
  std::string_view value_name;  // empty: a switch
  std::string_view help;
  bool repeatable = false;
  bool optional_value = false;  // then it never takes the next word
};

struct Arguments {
  std::vector<std::string> positional;
  std::map<std::string, std::vector<std::string>, std::less<>> flags;

  [[nodiscard]] bool has(std::string_view name) const { return flags.contains(name); }
  // The value of a flag given once; nullopt when absent.
  [[nodiscard]] std::optional<std::string> value(std::string_view name) const;
  [[nodiscard]] std::vector<std::string> values(std::string_view name) const;
};

// A usage error: exit code 64.
struct Misuse {
  std::string message;
  std::string hint;
};

base::Result<Arguments, Misuse> parse_arguments(const std::vector<std::string>& words, const std::vector<Flag>& flags);

// The candidate that `word` was probably meant to be (at most two edits away); empty when none is near.
[[nodiscard]] std::string nearest(std::string_view word, const std::vector<std::string_view>& candidates);

}  // namespace cellrund::cli
