// Reading the kernel's control files of cgroups.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace cellrund::host {

// Decimal, with the line's end or without; nullopt for anything else ("max" too).
[[nodiscard]] std::optional<std::uint64_t> parse_number(std::string_view text);
// A file that holds one number; nullopt when it is not there or holds no number.
[[nodiscard]] std::optional<std::uint64_t> read_number(const std::string& path);
// "key N" lines, as in memory.events or cpu.stat.
[[nodiscard]] std::optional<std::uint64_t> read_keyed(const std::string& path, std::string_view key);

}  // namespace cellrund::host
