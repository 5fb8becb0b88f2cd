// Finding the cgroup mounts of the host in /proc/self/mountinfo (proc(5), section "/proc/pid/mountinfo").
#include <algorithm>
#include <array>

#include "host/cgroup.hpp"

namespace cellrund::host {
namespace {

constexpr std::array<std::string_view, 3> kUsedControllers{"memory", "pids", "cpu"};

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> out;
  while (!text.empty()) {
    const std::size_t at = text.find(separator);
    out.push_back(text.substr(0, at));
    if (at == std::string_view::npos) {
      break;
    }
    text.remove_prefix(at + 1);
  }
  return out;
}

// The kernel writes space, tab, newline and backslash in paths as \ooo.
std::string unescape(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto digit = [&](std::size_t at) { return text[at] >= '0' && text[at] <= '7'; };
    if (text[i] == '\\' && i + 3 < text.size() && digit(i + 1) && digit(i + 2) && digit(i + 3)) {
      out += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0'));
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

}  // namespace

std::vector<Hierarchy> parse_cgroup_mounts(std::string_view mountinfo) {
  std::vector<Hierarchy> out;
  for (const std::string_view line : split(mountinfo, '\n')) {
    // "36 31 0:33 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory"
    const std::vector<std::string_view> fields = split(line, ' ');
    const auto dash = std::find(fields.begin(), fields.end(), "-");
    if (fields.size() < 10 || dash == fields.end() || fields.end() - dash < 4 || dash - fields.begin() < 6) {
      continue;
    }
    // A bind mount of a subtree (a container's view) is not the hierarchy's root.
    if (fields[3] != "/") {
      continue;
    }
    const std::string_view type = dash[1];
    if (type != "cgroup" && type != "cgroup2") {
      continue;
    }
    Hierarchy found;
    found.mount_point = unescape(fields[4]);
    found.v2 = type == "cgroup2";
    if (!found.v2) {
      for (const std::string_view option : split(dash[3], ',')) {
        if (std::find(kUsedControllers.begin(), kUsedControllers.end(), option) != kUsedControllers.end()) {
          found.controllers.emplace_back(option);
        }
      }
      if (found.controllers.empty()) {
        continue;
      }
    }
    const bool known = std::any_of(out.begin(), out.end(), [&](const Hierarchy& other) {
      return other.v2 == found.v2 && (found.v2 || other.controllers == found.controllers);
    });
    if (!known) {  // mounted a second time elsewhere: the same directories
      out.push_back(std::move(found));
    }
  }
  std::stable_partition(out.begin(), out.end(), [](const Hierarchy& h) { return h.v2; });
  return out;
}

}  // namespace cellrund::host
