#include "residue/proc_text.hpp"

#include "residue/subject.hpp"

namespace cellrund::residue {
namespace {

// Takes the next field up to a blank; false at the end.
bool next_field(std::string_view& rest, std::string_view& field) {
  while (!rest.empty() && rest.front() == ' ') {
    rest.remove_prefix(1);
  }
  if (rest.empty()) {
    return false;
  }
  const std::size_t end = rest.find(' ');
  field = rest.substr(0, end);
  rest.remove_prefix(end == std::string_view::npos ? rest.size() : end);
  return true;
}

// mangle_path() of the kernel writes blank, tab, newline, backslash and '#' as \ooo.
std::string unescape(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto octal = [&](std::size_t at) { return at < text.size() && text[at] >= '0' && text[at] <= '7'; };
    if (text[i] == '\\' && octal(i + 1) && octal(i + 2) && octal(i + 3)) {
      out += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0'));
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

}  // namespace

std::optional<ProcessStat> parse_stat(std::string_view text) {
  const std::size_t open = text.find('(');
  const std::size_t close = text.rfind(')');
  if (open == std::string_view::npos || close == std::string_view::npos || close < open) {
    return std::nullopt;
  }
  ProcessStat stat;
  stat.comm = text.substr(open + 1, close - open - 1);
  std::string_view rest = text.substr(close + 1);
  constexpr int kState = 3;
  constexpr int kFlags = 9;
  constexpr int kStartTime = 22;
  constexpr std::uint64_t kPfExiting = 0x4;  // include/linux/sched.h
  for (int number = kState; number <= kStartTime; ++number) {
    std::string_view field;
    if (!next_field(rest, field)) {
      return std::nullopt;
    }
    if (number == kState) {
      stat.state = field.front();
    } else if (number == kFlags) {
      stat.exiting = (parse_number(field).value_or(0) & kPfExiting) != 0;
    } else if (number == kStartTime) {
      const auto start = parse_number(field);
      if (!start) {
        return std::nullopt;
      }
      stat.start_time = *start;
    }
  }
  stat.exiting = stat.exiting || stat.state == 'Z' || stat.state == 'X';
  return stat;
}

std::optional<std::uint32_t> real_uid(std::string_view status) {
  std::optional<std::uint32_t> uid;
  for_each_line(status, [&](std::string_view line) {
    constexpr std::string_view kUid = "Uid:\t";
    if (!uid && line.starts_with(kUid)) {
      line.remove_prefix(kUid.size());
      const auto number = parse_number(line.substr(0, line.find('\t')));
      if (number && *number <= UINT32_MAX) {
        uid = static_cast<std::uint32_t>(*number);
      }
    }
  });
  return uid;
}

std::optional<MountLine> parse_mount_line(std::string_view line) {
  // 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
  MountLine mount;
  std::string_view field;
  std::string_view rest = line;
  for (int number = 1; number <= 6; ++number) {
    if (!next_field(rest, field)) {
      return std::nullopt;
    }
    if (number == 1) {
      const auto id = parse_number(field);
      if (!id) {
        return std::nullopt;
      }
      mount.id = *id;
    } else if (number == 4) {
      mount.root = unescape(field);
    } else if (number == 5) {
      mount.mount_point = unescape(field);
    }
  }
  while (field != "-") {  // optional fields
    if (!next_field(rest, field)) {
      return std::nullopt;
    }
  }
  if (!next_field(rest, field)) {
    return std::nullopt;
  }
  mount.type = unescape(field);
  if (next_field(rest, field)) {
    mount.source = unescape(field);
  }
  if (next_field(rest, field)) {
    mount.super_options = unescape(field);
  }
  return mount;
}

std::optional<std::uint64_t> namespace_inode(std::string_view link, std::string_view type) noexcept {
  if (link.size() < type.size() + 4 || !link.starts_with(type) || link.substr(type.size(), 2) != ":[" ||
      link.back() != ']') {
    return std::nullopt;
  }
  return parse_number(link.substr(type.size() + 2, link.size() - type.size() - 3));
}

std::vector<std::string_view> split_nul(std::string_view text) {
  std::vector<std::string_view> out;
  while (!text.empty()) {
    const std::size_t end = text.find('\0');
    out.push_back(text.substr(0, end));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
  return out;
}

}  // namespace cellrund::residue
