// The last steps of a process before it becomes the workload. Raw system calls: glibc's wrappers for ids serve threads.
#pragma once

#include "base/result.hpp"
#include "shim/wire/workload.hpp"

namespace cellrund::guest {

// Resource limits as given; a core file size of 0 unless one is given.
base::Status set_rlimits(const wire::Process& process);
// Groups, gid, bounding set, uid, capability sets, no_new_privs, in the only order in which each step is still allowed.
// Postcondition: checked by reading the ids back; the saved ids are gone too.
base::Status drop_privileges(const wire::Process& process);

}  // namespace cellrund::guest
