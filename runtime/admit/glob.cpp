#include "admit/glob.hpp"

#include <algorithm>
#include <cstdint>

namespace cellrund::admit {

bool glob_match(std::string_view pattern, std::string_view text) {
  if (pattern == "*") {
    return true;
  }
  // reached[i]: the pattern so far can end at text position i. One pass per pattern element, so no input backtracks.
  std::vector<std::uint8_t> reached(text.size() + 1, 0);
  reached[0] = 1;
  for (std::size_t p = 0; p < pattern.size();) {
    if (pattern[p] == '*') {
      const bool deep = p + 1 < pattern.size() && pattern[p + 1] == '*';
      for (std::size_t i = 0; i < text.size(); ++i) {
        if (reached[i] != 0 && (deep || text[i] != '/')) {
          reached[i + 1] = 1;
        }
      }
      p += deep ? 2 : 1;
      continue;
    }
    for (std::size_t i = text.size(); i-- > 0;) {
      reached[i + 1] = static_cast<std::uint8_t>(reached[i] != 0 && text[i] == pattern[p] ? 1 : 0);
    }
    reached[0] = 0;
    ++p;
  }
  return reached[text.size()] != 0;
}

bool any_match(const std::vector<std::string>& patterns, std::string_view text) {
  return std::any_of(patterns.begin(), patterns.end(), [text](const std::string& pattern) { return glob_match(pattern, text); });
}

}  // namespace cellrund::admit
