#include "job/syntax.hpp"

#include <algorithm>
#include <array>
#include <csignal>
#include <utility>
#include <vector>

#include "crypto/digest.hpp"
#include "model/reference.hpp"

namespace cellrund::job {
namespace {

bool is_lower(char c) noexcept { return c >= 'a' && c <= 'z'; }
bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }
bool is_letter(char c) noexcept { return is_lower(c) || (c >= 'A' && c <= 'Z'); }
char lower(char c) noexcept { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

constexpr std::array<std::string_view, 41> kCapabilities{
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
};

constexpr std::array<std::pair<std::string_view, int>, 10> kSignals{{
    {"SIGHUP", SIGHUP}, {"SIGINT", SIGINT}, {"SIGQUIT", SIGQUIT}, {"SIGABRT", SIGABRT}, {"SIGKILL", SIGKILL},
    {"SIGUSR1", SIGUSR1}, {"SIGUSR2", SIGUSR2}, {"SIGALRM", SIGALRM}, {"SIGTERM", SIGTERM}, {"SIGWINCH", SIGWINCH},
}};

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) {
    row[j] = j;
  }
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replace = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replace});
    }
  }
  return row[b.size()];
}

}  // namespace

bool is_label(std::string_view text) noexcept {
  return !text.empty() && text.size() <= 63 && text.front() != '-' && text.back() != '-' &&
         std::all_of(text.begin(), text.end(), [](char c) { return is_lower(c) || is_digit(c) || c == '-'; });
}

bool is_name(std::string_view text, std::string_view punctuation) noexcept {
  return !text.empty() && text.size() <= 128 && (is_letter(text.front()) || is_digit(text.front())) &&
         std::all_of(text.begin(), text.end(), [punctuation](char c) {
           return is_letter(c) || is_digit(c) || punctuation.find(c) != std::string_view::npos;
         });
}

bool is_env_name(std::string_view text) noexcept {
  return !text.empty() && text.size() <= 128 && !is_digit(text.front()) &&
         std::all_of(text.begin(), text.end(), [](char c) { return is_letter(c) || is_digit(c) || c == '_'; });
}

bool is_absolute_path(std::string_view text) noexcept {
  if (text.empty() || text.size() > 4096 || text.front() != '/' || !is_printable(text)) {
    return false;
  }
  if (text == "/") {
    return true;
  }
  while (!text.empty()) {
    text.remove_prefix(1);
    const std::string_view part = text.substr(0, text.find('/'));
    if (part.empty() || part == "." || part == "..") {
      return false;
    }
    text.remove_prefix(part.size());
  }
  return true;
}

bool is_dns_name(std::string_view text) noexcept {
  constexpr std::size_t kLongest = 253;
  if (text.size() > kLongest || text.find('.') == std::string_view::npos) {
    return false;
  }
  while (true) {
    const std::size_t dot = text.find('.');
    const std::string_view label = text.substr(0, dot);
    if (!is_label(label)) {
      return false;
    }
    if (dot == std::string_view::npos) {
      return !std::all_of(label.begin(), label.end(), is_digit);
    }
    text.remove_prefix(dot + 1);
  }
}

bool is_capability(std::string_view text) noexcept {
  constexpr std::string_view kPrefix = "CAP_";
  return text.starts_with(kPrefix) &&
         std::find(kCapabilities.begin(), kCapabilities.end(), text.substr(kPrefix.size())) != kCapabilities.end();
}

bool is_printable(std::string_view text) noexcept {
  return std::none_of(text.begin(), text.end(), [](char c) { return (c >= 0 && c < 0x20) || c == 0x7f; });
}

std::optional<int> parse_signal(std::string_view text) noexcept {
  for (const auto& [name, number] : kSignals) {
    if (name == text) {
      return number;
    }
  }
  return std::nullopt;
}

base::Result<model::ImageRef, model::Refusal> parse_image(std::string_view text, const std::string& field) {
  const auto refuse = [&field](model::Reason reason, const char* why, const char* hint) {
    return model::Refusal{reason, field + " " + why, hint, field};
  };
  constexpr const char* kPin = "pin it: repository@sha256:<64 hex digits>; `cellrun image ls` prints the pinned names";
  const std::size_t at = text.find('@');
  if (at == std::string_view::npos) {
    return refuse(model::Reason::kImageNotPinned, "names an image without a digest", kPin);
  }
  if (!crypto::is_digest_text(text.substr(at + 1))) {
    return refuse(model::Reason::kImageNotPinned, "has no digest of the form sha256:<64 lower-case hex digits>", kPin);
  }
  const std::string_view repository = text.substr(0, at);
  if (model::is_repository(repository)) {
    return model::ImageRef{std::string(repository), std::string(text.substr(at + 1))};
  }
  const std::size_t colon = repository.rfind(':');
  if (colon != std::string_view::npos && repository.find('/', colon) == std::string_view::npos &&
      model::is_repository(repository.substr(0, colon))) {
    return refuse(model::Reason::kImageNotPinned, "has a tag beside the digest", "remove the tag: only the digest counts");
  }
  return refuse(model::Reason::kSchemaInvalid, "has a malformed repository name",
                "use lower-case letters, digits, '.', '_', '-' between '/', with an optional registry in front");
}

void Speller::offer(std::string_view known) {
  const std::size_t longer = std::max(wrong_.size(), known.size());
  const std::size_t shorter = std::min(wrong_.size(), known.size());
  if (longer - shorter > 2 || longer > 64) {
    return;
  }
  std::string a(wrong_);
  std::string b(known);
  std::transform(a.begin(), a.end(), a.begin(), lower);
  std::transform(b.begin(), b.end(), b.begin(), lower);
  const std::size_t distance = edit_distance(a, b);
  if (distance < distance_ && distance < shorter) {
    distance_ = distance;
    best_ = known;
  }
}

}  // namespace cellrund::job
