// Quantity strings as Kubernetes spells them (apimachinery pkg/api/resource/quantity.go), without exponents and signs:
// digits with an optional fraction, then a suffix. No leading zeros, at most 32 characters, no white space.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace cellrund::model {

// Thousandths of a CPU: "1", "0.5", "500m". nullopt when malformed, finer than 1m, or above 2^53.
[[nodiscard]] std::optional<std::uint64_t> parse_cpu_millis(std::string_view text) noexcept;

// Whole bytes: "1048576", "1Mi", "0.5Gi", "10M" (suffixes k M G T and Ki Mi Gi Ti). nullopt when malformed, no whole
// number of bytes, or above 2^53.
[[nodiscard]] std::optional<std::uint64_t> parse_bytes(std::string_view text) noexcept;

// The shortest spelling that parses back: 1500 → "1500m", 2000 → "2"; 268435456 → "256Mi".
[[nodiscard]] std::string format_cpu_millis(std::uint64_t millis);
[[nodiscard]] std::string format_bytes(std::uint64_t bytes);

}  // namespace cellrund::model
