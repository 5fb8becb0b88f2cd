// Names of capabilities, resource limits and addresses, as the OCI runtime spec and the jobspec write them.
#include <algorithm>
#include <array>
#include <charconv>

#include "shim/wire/workload.hpp"

namespace cellrund::wire {
namespace {

// capabilities(7), in the order of linux/capability.h.
constexpr std::array<std::string_view, 41> kCapabilities{
    "CHOWN",           "DAC_OVERRIDE", "DAC_READ_SEARCH",  "FOWNER",         "FSETID",       "KILL",
    "SETGID",          "SETUID",       "SETPCAP",          "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST",
    "NET_ADMIN",       "NET_RAW",      "IPC_LOCK",         "IPC_OWNER",      "SYS_MODULE",   "SYS_RAWIO",
    "SYS_CHROOT",      "SYS_PTRACE",   "SYS_PACCT",        "SYS_ADMIN",      "SYS_BOOT",     "SYS_NICE",
    "SYS_RESOURCE",    "SYS_TIME",     "SYS_TTY_CONFIG",   "MKNOD",          "LEASE",        "AUDIT_WRITE",
    "AUDIT_CONTROL",   "SETFCAP",      "MAC_OVERRIDE",     "MAC_ADMIN",      "SYSLOG",       "WAKE_ALARM",
    "BLOCK_SUSPEND",   "AUDIT_READ",   "PERFMON",          "BPF",            "CHECKPOINT_RESTORE"};

// asm-generic/resource.h.
constexpr std::array<std::string_view, 16> kRlimits{"CPU",    "FSIZE", "DATA",  "STACK",      "CORE",     "RSS",  "NPROC",  "NOFILE",
                                                    "MEMLOCK", "AS",    "LOCKS", "SIGPENDING", "MSGQUEUE", "NICE", "RTPRIO", "RTTIME"};

template <std::size_t N>
std::optional<unsigned> index_of(const std::array<std::string_view, N>& names, std::string_view name) noexcept {
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end()) {
    return std::nullopt;
  }
  return static_cast<unsigned>(found - names.begin());
}

template <std::size_t N>
std::optional<std::array<std::uint8_t, N>> parse_bytes(std::string_view text, char separator, int number_base,
                                                       std::size_t max_digits) noexcept {
  std::array<std::uint8_t, N> out{};
  for (std::size_t i = 0; i < N; ++i) {
    const std::size_t end = i + 1 < N ? text.find(separator) : text.size();
    if (end == std::string_view::npos || end == 0 || end > max_digits) {
      return std::nullopt;
    }
    // No leading zero in decimal: other readers take it for octal.
    if (number_base == 10 && end > 1 && text.front() == '0') {
      return std::nullopt;
    }
    const auto parsed = std::from_chars(text.data(), text.data() + end, out[i], number_base);
    if (parsed.ec != std::errc() || parsed.ptr != text.data() + end) {
      return std::nullopt;
    }
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return out;
}

}  // namespace

std::optional<unsigned> capability_number(std::string_view name) noexcept {
  if (name.starts_with("CAP_")) {
    name.remove_prefix(4);
  }
  return index_of(kCapabilities, name);
}

std::optional<std::uint32_t> rlimit_number(std::string_view name) noexcept {
  if (name.starts_with("RLIMIT_")) {
    name.remove_prefix(7);
  }
  return index_of(kRlimits, name);
}

std::optional<std::array<std::uint8_t, 4>> parse_ipv4(std::string_view text) noexcept {
  return parse_bytes<4>(text, '.', 10, 3);
}

std::optional<std::array<std::uint8_t, 6>> parse_mac(std::string_view text) noexcept {
  return text.size() == 17 ? parse_bytes<6>(text, ':', 16, 2) : std::nullopt;
}

}  // namespace cellrund::wire
