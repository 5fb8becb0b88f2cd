// The least that can bring up a cell's guest: QEMU started with nothing around it, let go, spoken to until its command
// has ended. The peer of the whole product, so it does no more than this.
#pragma once

#include "tools/bench/raw_boot/plan.hpp"
#include "tools/bench/sample.hpp"

namespace cellrund::bench {

// The clock starts right before QEMU does: files are open, the tap device is up, the channels are made. It ends with
// the guest's report of its command's end; QEMU is killed then, as the shim does. Needs a network namespace of its own,
// in which it makes the tap device.
[[nodiscard]] Sample raw_boot(const BootPlan& plan);

}  // namespace cellrund::bench
