#include "arguments.hpp"

#include <algorithm>

namespace cellrund::cli {
namespace {

// Edits (insert, delete, replace, swap neighbours) from a to b: optimal string alignment, on words of a few letters.
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<std::size_t>> d(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i) {
    d[i][0] = i;
  }
  for (std::size_t j = 0; j <= b.size(); ++j) {
    d[0][j] = j;
  }
  for (std::size_t i = 1; i <= a.size(); ++i) {
    for (std::size_t j = 1; j <= b.size(); ++j) {
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0U : 1U)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
      }
    }
  }
  return d[a.size()][b.size()];
}

const Flag* find_flag(const std::vector<Flag>& flags, std::string_view word) {
  for (const Flag& flag : flags) {
    const bool is_long = word.size() > 2 && word.starts_with("--") && word.substr(2) == flag.name;
    const bool is_short = word.size() == 2 && flag.letter != 0 && word[1] == flag.letter;
    if (is_long || is_short) {
      return &flag;
    }
  }
  return nullptr;
}

Misuse unknown_flag(std::string_view word, const std::vector<Flag>& flags) {
  std::vector<std::string_view> names;
  for (const Flag& flag : flags) {
    names.push_back(flag.name);
  }
  const std::string near = word.starts_with("--") ? nearest(word.substr(2), names) : "";
  return {"unknown flag " + std::string(word), near.empty() ? "--help lists the flags" : "did you mean --" + near + "?"};
}

}  // namespace

std::string nearest(std::string_view word, const std::vector<std::string_view>& candidates) {
  constexpr std::size_t kMaxWord = 64;
  std::string best;
  std::size_t best_distance = 3;
  for (const std::string_view candidate : candidates) {
    if (word.size() > kMaxWord || candidate.size() <= 2) {
      continue;
    }
    if (const std::size_t d = distance(word, candidate); d < best_distance && d < candidate.size()) {
      best_distance = d;
      best = candidate;
    }
  }
  return best;
}

std::optional<std::string> Arguments::value(std::string_view name) const {
  const auto found = flags.find(name);
  return found == flags.end() || found->second.empty() ? std::nullopt : std::optional(found->second.front());
}

std::vector<std::string> Arguments::values(std::string_view name) const {
  const auto found = flags.find(name);
  return found == flags.end() ? std::vector<std::string>() : found->second;
}

base::Result<Arguments, Misuse> parse_arguments(const std::vector<std::string>& words, const std::vector<Flag>& flags) {
  Arguments out;
  bool flags_over = false;
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    if (flags_over || word.size() < 2 || word[0] != '-') {  // "-" alone stands for stdin
      out.positional.push_back(word);
      continue;
    }
    if (word == "--") {
      flags_over = true;
      continue;
    }
    const std::size_t equals = word.starts_with("--") ? word.find('=') : std::string::npos;
    const std::string name = word.substr(0, equals);
    const Flag* flag = find_flag(flags, name);
    if (flag == nullptr) {
      return unknown_flag(name, flags);
    }
    if (out.has(flag->name) && !flag->repeatable) {
      return Misuse{name + " is given twice", "give it once"};
    }
    std::vector<std::string>& values = out.flags[std::string(flag->name)];
    if (flag->value_name.empty()) {
      if (equals != std::string::npos) {
        return Misuse{name + " takes no value", "write " + name + " alone"};
      }
      continue;
    }
    if (equals != std::string::npos) {
      values.push_back(word.substr(equals + 1));
    } else if (flag->optional_value) {
      continue;
    } else if (i + 1 < words.size()) {
      values.push_back(words[++i]);
    } else {
      return Misuse{name + " needs a value", name + " " + std::string(flag->value_name)};
    }
  }
  return out;
}

}  // namespace cellrund::cli
