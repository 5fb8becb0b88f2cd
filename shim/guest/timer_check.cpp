#include "shim/guest/timer_check.hpp"

#include <cpuid.h>

#include <array>
#include <charconv>
#include <cstring>
#include <optional>
#include <string>

#include "base/file.hpp"

namespace cellrund::guest {
namespace {

using base::Errc;
using base::Error;

constexpr std::uint64_t kTcgApicHz = 1'000'000'000 / 16;

// CPUID leaf 0x40000000, as QEMU fills it without a hypervisor.
bool is_tcg() noexcept {
  constexpr unsigned kHypervisorLeaf = 0x40000000;
  unsigned eax = 0;
  std::array<unsigned, 3> signature{};
  __cpuid(kHypervisorLeaf, eax, signature[0], signature[1], signature[2]);
  return std::memcmp(signature.data(), "TCGTCGTCGTCG", sizeof(signature)) == 0;
}

std::optional<std::uint64_t> field(std::string_view text, std::string_view name) noexcept {
  const std::size_t at = text.find(name);
  if (at == std::string_view::npos) {
    return std::nullopt;
  }
  text.remove_prefix(at + name.size());
  text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
  std::uint64_t value = 0;
  if (std::from_chars(text.data(), text.data() + text.size(), value).ec != std::errc()) {
    return std::nullopt;
  }
  return value;
}

}  // namespace

std::uint64_t clock_event_hz(std::string_view timer_list, std::string_view name) noexcept {
  const std::size_t at = timer_list.find("Clock Event Device: " + std::string(name) + "\n");
  if (at == std::string_view::npos) {
    return 0;
  }
  const std::string_view device = timer_list.substr(at, 1024);
  const auto mult = field(device, "mult:");
  const auto shift = field(device, "shift:");
  if (!mult || !shift || *shift > 32 || *mult > UINT32_MAX) {
    return 0;
  }
  return (*mult * 1'000'000'000) >> *shift;  // below 2^32 * 2^30
}

base::Status check_timer_speed() {
  if (!is_tcg()) {
    return base::ok();
  }
  constexpr std::size_t kMaxTimerList = 256 * 1024;
  const std::string list = CR_TRY(base::read_file("/proc/timer_list", kMaxTimerList));
  const std::uint64_t hz = clock_event_hz(list, "lapic");
  // Too slow a rate makes timers fire early, and the kernel only looks again; too fast a one makes every sleep longer.
  if (hz < kTcgApicHz / 8 || hz > kTcgApicHz + kTcgApicHz / 8) {
    return Error(Errc::kFailedPrecondition, "the APIC timer was measured as " + std::to_string(hz) + " Hz instead of " +
                                                std::to_string(kTcgApicHz) + ": boot again");
  }
  return base::ok();
}

}  // namespace cellrund::guest
