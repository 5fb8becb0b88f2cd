// The workload's own /dev: a handful of harmless devices, new pseudo-terminals, shared memory. No disk, no control port.
#pragma once

#include "base/result.hpp"

namespace cellrund::guest {

// Needs CAP_MKNOD and the process's own /proc.
base::Status populate_dev();

}  // namespace cellrund::guest
