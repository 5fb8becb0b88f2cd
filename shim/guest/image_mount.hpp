// Mounting an EROFS image: a block device in a guest, a file in the process lane.
#pragma once

#include <string>

#include "base/result.hpp"
namespace cellrund::guest {

struct ImageSource {
  std::string device;  // in a guest
  int fd = -1;         // in the process lane: then `device` is not used
};

// Read-only, no devices. In the process lane the image descriptor is closed afterwards, and nothing outlives the mount:
// a loop device, where the kernel needs one, clears itself with the last unmount.
base::Status mount_image(const ImageSource& source, const std::string& target);

}  // namespace cellrund::guest
