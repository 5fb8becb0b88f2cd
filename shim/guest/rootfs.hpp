// The workload's root file system: EROFS image below, tmpfs above, joined by overlayfs; kernel file systems, devices,
// masks, tmpfs mounts and files on it; all in the caller's own mount namespace.
#pragma once

#include "base/result.hpp"
#include "shim/wire/workload.hpp"

namespace cellrund::guest {

// Precondition: the caller is alone in a fresh mount namespace and PID 1 of a fresh pid namespace.
// Postcondition of success: "/" is the workload's root, nothing of the old root is reachable, cwd is "/".
// On failure the namespace is unfit for anything. `outputs_fd`: a detached mount for /outputs; -1: none.
base::Status build_root(const wire::Workload& workload, int outputs_fd);

// Whether a file system that the workload may write has no block or no inode left at this moment. To be asked from within
// its mount namespace; what the workload has removed again by then is not seen.
[[nodiscard]] bool storage_is_full(const wire::Workload& workload) noexcept;

}  // namespace cellrund::guest
