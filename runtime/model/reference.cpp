#include "model/reference.hpp"

#include <algorithm>

namespace cellrund::model {
namespace {

bool is_lower(char c) noexcept {
  return c >= 'a' && c <= 'z';
}
bool is_digit(char c) noexcept {
  return c >= '0' && c <= '9';
}

// One path component of a repository: alphanumeric runs joined by '.', '_', "__" or any number of '-'
// (github.com/distribution/reference, regexp.go).
bool is_repository_part(std::string_view part) noexcept {
  const auto word = [](char c) { return is_lower(c) || is_digit(c); };
  if (part.empty() || !word(part.front()) || !word(part.back())) {
    return false;
  }
  for (std::size_t i = 0; i < part.size();) {
    if (word(part[i])) {
      ++i;
      continue;
    }
    const std::size_t start = i;
    while (i < part.size() && part[i] == part[start]) {
      ++i;
    }
    const std::size_t run = i - start;
    if (!word(part[i]) ||
        !((part[start] == '-') || (part[start] == '_' && run <= 2) || (part[start] == '.' && run == 1))) {
      return false;
    }
  }
  return true;
}

// "host" or "host:port", where the host is a name or an IPv4 address.
bool is_registry(std::string_view text) noexcept {
  const std::size_t colon = text.find(':');
  if (colon != std::string_view::npos) {
    const std::string_view port = text.substr(colon + 1);
    if (port.empty() || port.size() > 5 || !std::all_of(port.begin(), port.end(), is_digit)) {
      return false;
    }
  }
  const std::string_view host = text.substr(0, colon);
  if (host.empty() || !(is_lower(host.front()) || is_digit(host.front())) ||
      !(is_lower(host.back()) || is_digit(host.back()))) {
    return false;
  }
  return host.find("..") == std::string_view::npos && std::all_of(host.begin(), host.end(), [](char c) {
           return is_lower(c) || is_digit(c) || c == '.' || c == '-';
         });
}

}  // namespace

bool is_repository(std::string_view text) noexcept {
  if (text.empty() || text.size() > 255) {
    return false;
  }
  bool first = true;
  while (true) {
    const std::size_t slash = text.find('/');
    const std::string_view part = text.substr(0, slash);
    // As in distribution/reference, a first part names a registry only when something follows it.
    if (!(is_repository_part(part) || (first && slash != std::string_view::npos && is_registry(part)))) {
      return false;
    }
    if (slash == std::string_view::npos) {
      return true;
    }
    text.remove_prefix(slash + 1);
    first = false;
  }
}

}  // namespace cellrund::model
