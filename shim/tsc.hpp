// The rate of the host's time stamp counter, which an emulated guest counts with.
#pragma once

#include <cstdint>

namespace cellrund::shim {

// In kHz, over about 20 ms; 0 when this processor's counter does not run at a constant rate (cpuid 0x80000007, EDX bit 8)
// and so tells nothing.
[[nodiscard]] std::uint64_t measure_tsc_khz() noexcept;

}  // namespace cellrund::shim
