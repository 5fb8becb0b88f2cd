// Whether the guest's timer interrupt runs at the speed that the guest's kernel believes.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/result.hpp"

namespace cellrund::guest {

// Frequency in Hz that the kernel has for the clock event device `name`, from the text of /proc/timer_list: its mult and
// shift fields (include/linux/clockchips.h). 0 when it is not listed.
[[nodiscard]] std::uint64_t clock_event_hz(std::string_view timer_list, std::string_view name) noexcept;

// Under QEMU's TCG alone. The kernel measures the APIC timer against the cycle counter during 100 ms of its boot, and a
// host that takes the CPU away at the wrong moment spoils that: every timer of this machine then fires late by a factor,
// for ever. QEMU's timer counts nanoseconds and Linux divides by 16, so what it should have found is known.
// kFailedPrecondition when sleeps would be more than an eighth too long: the machine should boot again.
base::Status check_timer_speed();

}  // namespace cellrund::guest
