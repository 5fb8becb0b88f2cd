// The text files of /proc, parsed. Pure functions over hostile input: names, paths and command lines in them are chosen
// by whoever runs the processes. Source: proc(5), Documentation/filesystems/proc.rst. Internal to residue.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace cellrund::residue {

// /proc/PID/stat. The comm field may hold anything, so the rest is counted from the last ')'.
struct ProcessStat {
  std::string comm;
  char state = '?';
  bool exiting = false;  // PF_EXITING of the flags field, or a zombie: on its way out, nothing can stop it
  std::uint64_t start_time = 0;
};
[[nodiscard]] std::optional<ProcessStat> parse_stat(std::string_view text);

// The real uid in /proc/PID/status. The kernel escapes a newline in the name above it.
[[nodiscard]] std::optional<std::uint32_t> real_uid(std::string_view status);

// One line of /proc/PID/mountinfo, octal escapes resolved.
struct MountLine {
  std::uint64_t id = 0;
  std::string root;        // "net:[4026532001]" for a bind mount of a namespace file
  std::string mount_point;
  std::string type;
  std::string source;
  std::string super_options;
};
[[nodiscard]] std::optional<MountLine> parse_mount_line(std::string_view line);

// Inode out of "net:[4026532001]" (readlink of a namespace file, or the root field above).
[[nodiscard]] std::optional<std::uint64_t> namespace_inode(std::string_view link, std::string_view type) noexcept;

// Calls `each` with every line, without the newline.
template <typename F>
void for_each_line(std::string_view text, F each) {
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    each(text.substr(0, end));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
}

// NUL-separated strings of cmdline and environ.
[[nodiscard]] std::vector<std::string_view> split_nul(std::string_view text);

}  // namespace cellrund::residue
