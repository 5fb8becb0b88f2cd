#include "host/cgroup_files.hpp"

#include <algorithm>
#include <charconv>

#include "base/file.hpp"

namespace cellrund::host {

std::optional<std::uint64_t> parse_number(std::string_view text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) {
    text.remove_suffix(1);
  }
  std::uint64_t value = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  if (parsed.ec != std::errc() || parsed.ptr != text.data() + text.size()) {
    return std::nullopt;
  }
  return value;
}

std::optional<std::uint64_t> read_number(const std::string& path) {
  const auto text = base::read_file(path, 4096);
  return text.ok() ? parse_number(*text) : std::nullopt;
}

std::optional<std::uint64_t> read_keyed(const std::string& path, std::string_view key) {
  const auto text = base::read_file(path, 65536);
  if (!text.ok()) {
    return std::nullopt;
  }
  std::string_view rest = *text;
  while (!rest.empty()) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    if (line.size() > key.size() && line.starts_with(key) && line[key.size()] == ' ') {
      return parse_number(line.substr(key.size() + 1));
    }
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
  }
  return std::nullopt;
}

}  // namespace cellrund::host
