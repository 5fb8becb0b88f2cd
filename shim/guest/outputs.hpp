// /outputs: a file system of its own, made before the workload's namespaces so that it outlives them, and read out when
// every process of the workload is dead.
#pragma once

#include "base/fd.hpp"
#include "base/result.hpp"
#include "shim/wire/workload.hpp"

namespace cellrund::guest {

// A detached tmpfs whose root belongs to the workload's user (0700). Larger than max_bytes by a page per file and
// 1 MiB, with room for as many folders and special files as files, so that a job that goes over its budget gets a list
// of what was refused rather than ENOSPC; beyond that it gets ENOSPC.
base::Result<base::UniqueFd> make_outputs(const wire::Workload& workload);
// In the workload's mount namespace: at /outputs.
base::Status attach_outputs(int mount_fd);

// Walks the folder and writes the archive (shim/wire/outputs.hpp) to `port`, in straight lines: call it in a process of
// its own. Regular files alone are opened, no link is followed, and nothing beyond the budget is read. Success: the reader
// said that it has all. kDeadlineExceeded when it takes nothing for 5 s, kUnavailable when it is gone.
base::Status send_outputs(int mount_fd, const wire::OutputsPlan& plan, int port);

}  // namespace cellrund::guest
