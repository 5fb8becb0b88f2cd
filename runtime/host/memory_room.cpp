#include "host/memory_room.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>

#include "base/file.hpp"
#include "model/quantity.hpp"

namespace cellrund::host {
namespace {

constexpr std::size_t kMaxText = 64UL * 1024;

std::string percent(double value) {
  std::array<char, 32> text{};
  (void)std::snprintf(text.data(), text.size(), "%.0f %%", value);
  return text.data();
}

}  // namespace

std::optional<std::uint64_t> parse_available(std::string_view meminfo) {
  constexpr std::string_view kKey = "MemAvailable:";
  const std::size_t at = meminfo.starts_with(kKey) ? 0 : meminfo.find("\nMemAvailable:");
  if (at == std::string_view::npos) {
    return std::nullopt;
  }
  std::string_view rest = meminfo.substr(at + (at == 0 ? 0 : 1) + kKey.size());
  rest.remove_prefix(std::min(rest.size(), rest.find_first_not_of(' ')));
  std::uint64_t kib = 0;
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), kib);
  if (error != std::errc() || !std::string_view(end, rest.data() + rest.size()).starts_with(" kB") || kib > (1ULL << 50U)) {
    return std::nullopt;
  }
  return kib * 1024;
}

std::optional<double> parse_pressure(std::string_view text) {
  constexpr std::string_view kStart = "some avg10=";
  if (!text.starts_with(kStart)) {
    return std::nullopt;
  }
  text.remove_prefix(kStart.size());
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed);
  if (error != std::errc() || end == text.data() + text.size() || *end != ' ' || !(value >= 0 && value <= 100)) {
    return std::nullopt;
  }
  return value;
}

MemoryState memory_state() {
  MemoryState out;
  if (const auto text = base::read_file("/proc/meminfo", kMaxText); text.ok()) {
    out.available_bytes = parse_available(*text);
  }
  if (const auto text = base::read_file("/proc/pressure/memory", kMaxText); text.ok()) {
    out.pressure_percent = parse_pressure(*text);
  }
  return out;
}

std::string memory_shortage(const MemoryState& state, const MemoryBounds& bounds, std::uint64_t wish_bytes) {
  if (state.available_bytes.has_value() &&
      (*state.available_bytes < bounds.reserve_bytes || *state.available_bytes - bounds.reserve_bytes < wish_bytes)) {
    return "the host has " + model::format_bytes(*state.available_bytes) + " of memory available, the cell may use " +
           model::format_bytes(wish_bytes) + " and " + model::format_bytes(bounds.reserve_bytes) +
           " must stay (capacity.memory_reserve_bytes)";
  }
  if (bounds.pressure_percent != 0 && state.pressure_percent.has_value() && *state.pressure_percent > bounds.pressure_percent) {
    return "the host's tasks waited for memory during " + percent(*state.pressure_percent) + " of the last 10 s, more than " +
           percent(bounds.pressure_percent) + " (capacity.memory_pressure_percent)";
  }
  return {};
}

}  // namespace cellrund::host
