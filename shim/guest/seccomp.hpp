// A seccomp filter for the workload: a deny list of what administers the kernel rather than uses it.
//
// A deny list is the right shape here: the payload is arbitrary software, and the boundary of the cell is not this
// filter (tier 2: the machine; tier 0 claims none). It takes away the largest and least needed parts of the kernel's
// surface. Written as classic BPF by hand, since libseccomp would cost half a millisecond of every process-lane start.
#pragma once

#include "base/result.hpp"

namespace cellrund::guest {

// For the calling thread and all that it becomes. Needs CAP_SYS_ADMIN or no_new_privs (seccomp(2)).
base::Status install_seccomp();

}  // namespace cellrund::guest
