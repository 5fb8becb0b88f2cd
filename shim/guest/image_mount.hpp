// Mounting the EROFS image of a root file system: a block device in a guest, a file in the process lane.
#pragma once

#include <string>

#include "base/result.hpp"
#include "shim/wire/workload.hpp"

namespace cellrund::guest {

// Read-only, no devices. In the process lane the image descriptor is closed afterwards, and nothing outlives the mount:
// a loop device, where the kernel needs one, clears itself with the last unmount.
base::Status mount_image(const wire::Workload& workload, const std::string& target);

}  // namespace cellrund::guest
