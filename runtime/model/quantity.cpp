#include "model/quantity.hpp"

#include <array>
#include <utility>

namespace cellrund::model {
namespace {

constexpr std::uint64_t kMax = 1ULL << 53U;  // what every JSON reader can hold exactly
constexpr std::size_t kMaxLength = 32;

constexpr std::array<std::pair<std::string_view, std::uint64_t>, 8> kByteSuffixes{{
    {"Ki", 1ULL << 10U}, {"Mi", 1ULL << 20U}, {"Gi", 1ULL << 30U}, {"Ti", 1ULL << 40U},
    {"k", 1000ULL}, {"M", 1000'000ULL}, {"G", 1000'000'000ULL}, {"T", 1000'000'000'000ULL},
}};

bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }

// number × unit, exactly; nullopt unless `number` is digits[.digits] and the product is whole and within kMax.
std::optional<std::uint64_t> scaled(std::string_view number, std::uint64_t unit) noexcept {
  const std::size_t dot = number.find('.');
  const std::string_view whole = number.substr(0, dot);
  const std::string_view fraction = dot == std::string_view::npos ? std::string_view() : number.substr(dot + 1);
  if (whole.empty() || (whole.size() > 1 && whole.front() == '0') || (dot != std::string_view::npos && fraction.empty())) {
    return std::nullopt;
  }
  __extension__ using Wide = unsigned __int128;
  Wide value = 0;
  Wide denominator = 1;
  const auto append = [&value](char c) {
    value = value * 10 + static_cast<unsigned>(c - '0');
    return value <= kMax;
  };
  for (const char c : whole) {
    if (!is_digit(c) || !append(c)) {
      return std::nullopt;
    }
  }
  for (const char c : fraction) {
    if (!is_digit(c) || !append(c)) {
      return std::nullopt;
    }
    denominator *= 10;
  }
  value *= unit;  // at most 2^53 × 10^12 < 2^94
  if (value % denominator != 0 || value / denominator > kMax) {
    return std::nullopt;
  }
  return static_cast<std::uint64_t>(value / denominator);
}

}  // namespace

std::optional<std::uint64_t> parse_cpu_millis(std::string_view text) noexcept {
  if (text.size() > kMaxLength) {
    return std::nullopt;
  }
  if (text.ends_with('m')) {
    return scaled(text.substr(0, text.size() - 1), 1);
  }
  return scaled(text, 1000);
}

std::optional<std::uint64_t> parse_bytes(std::string_view text) noexcept {
  if (text.size() > kMaxLength) {
    return std::nullopt;
  }
  for (const auto& [suffix, unit] : kByteSuffixes) {
    if (text.ends_with(suffix)) {
      return scaled(text.substr(0, text.size() - suffix.size()), unit);
    }
  }
  return scaled(text, 1);
}

std::string format_cpu_millis(std::uint64_t millis) {
  return millis % 1000 == 0 ? std::to_string(millis / 1000) : std::to_string(millis) + "m";
}

std::string format_bytes(std::uint64_t bytes) {
  for (std::size_t i = 4; i-- > 0;) {
    const auto& [suffix, unit] = kByteSuffixes[i];
    if (bytes != 0 && bytes % unit == 0) {
      return std::to_string(bytes / unit) + std::string(suffix);
    }
  }
  return std::to_string(bytes);
}

}  // namespace cellrund::model
