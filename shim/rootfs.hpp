// The root file system as one EROFS image. A mount entry of type `erofs` names a ready image, which is opened and never
// mounted. Anything else (what a snapshotter gives `ctr`) is mounted in a child's own mount namespace and turned into an
// image there; the mount ends with the child.
#pragma once

#include <sys/types.h>

#include <string>
#include <variant>
#include <vector>

#include "base/fd.hpp"
#include "base/process.hpp"
#include "base/result.hpp"
#include "shim/config.hpp"

namespace cellrund::shim {

struct RootfsMount {
  std::string type;
  std::string source;
  std::vector<std::string> options;
};

// An image in the making: `image` is complete when `builder` has exited with 0.
struct RootfsBuild {
  std::string path;  // to be unlinked when the builder has ended
  base::UniqueFd image;
  base::PidFd builder;
};

// An EROFS image in a regular file, for reading only. kInvalidArgument when it is something else.
base::Result<base::UniqueFd> open_image(const std::string& path);

// kInvalidArgument for mounts that make no root file system.
base::Result<std::variant<base::UniqueFd, RootfsBuild>> open_rootfs(const std::vector<RootfsMount>& mounts,
                                                                    const std::string& bundle, const Config& config);

// The image of a finished build, for reading only; its name goes away, success or not.
base::Result<base::UniqueFd> finish_build(RootfsBuild build, base::ExitStatus builder);

}  // namespace cellrund::shim
