// Which process an image and a container spec name together. Pure.
#pragma once

#include <string>
#include <vector>

#include "base/result.hpp"
#include "model/job_spec.hpp"
#include "model/stages.hpp"

namespace cellrund::image {

struct ResolvedProcess {
  std::vector<std::string> args;
  std::vector<std::string> env;  // "NAME=value", unique names
  std::string cwd;               // absolute
};

// Kubernetes' rules: `command` replaces the entrypoint and drops the image's cmd; `args` replaces the cmd; spec.env
// wins over the image's by name; a default PATH where neither has one. kInvalidArgument when nothing is left to run or
// the working directory is not absolute.
base::Result<ResolvedProcess> resolve_process(const model::ImageConfig& image, const model::Container& container);

}  // namespace cellrund::image
