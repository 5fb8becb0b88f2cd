// Whether the host has memory to spare for one more cell: what is available, and whether tasks already stall for it.
// Sources: proc_meminfo(5), kernel Documentation/accounting/psi.rst.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace cellrund::host {

struct MemoryBounds {
  std::uint64_t reserve_bytes = 0;      // must stay available beside what the cell may use
  std::uint32_t pressure_percent = 0;   // of the last 10 s in which some task may have waited for memory; 0: not looked at
};

struct MemoryState {
  std::optional<std::uint64_t> available_bytes;
  std::optional<double> pressure_percent;  // absent on kernels without PSI
};

// "MemAvailable:  12345 kB" of /proc/meminfo, in bytes.
[[nodiscard]] std::optional<std::uint64_t> parse_available(std::string_view meminfo);
// avg10 of the line "some" of /proc/pressure/memory.
[[nodiscard]] std::optional<double> parse_pressure(std::string_view text);
[[nodiscard]] MemoryState memory_state();

// Why a cell of `wish_bytes` must not start now, for people; empty: it may. What the kernel does not tell stands in no way. Pure.
[[nodiscard]] std::string memory_shortage(const MemoryState& state, const MemoryBounds& bounds, std::uint64_t wish_bytes);

}  // namespace cellrund::host
