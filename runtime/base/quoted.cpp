// Apart from log.cpp: who only quotes does not link the log's library.
#include "base/log.hpp"

namespace cellrund::base::log {

std::string quoted(std::string_view untrusted, std::size_t limit) {
  constexpr std::string_view kHex = "0123456789abcdef";
  std::string out = "\"";
  std::size_t taken = 0;
  for (const char c : untrusted) {
    if (taken++ == limit) {
      return out + "\"...";
    }
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte >= 0x20 && byte < 0x7f) {
      out += c;
    } else {
      out += "\\x";
      out += kHex[byte >> 4U];
      out += kHex[byte & 15U];
    }
  }
  return out + "\"";
}

}  // namespace cellrund::base::log
