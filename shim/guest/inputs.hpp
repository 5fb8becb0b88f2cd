// The job's files in its cell: /task for reading, /workspace as a private copy that may be written.
#pragma once

#include <string>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "shim/wire/workload.hpp"

namespace cellrund::guest {

// Mounts that stand nowhere yet; invalid where the workload has none.
struct StagedInputs {
  base::UniqueFd task;
  base::UniqueFd workspace;
};

// Before the new root is entered: the image is mounted below `stage`, an existing folder that only this namespace sees.
base::Result<StagedInputs> stage_inputs(const wire::Workload& workload, const std::string& stage);
// In the new root. No part of /task and /workspace may be a symbolic link of the image's.
base::Status attach_inputs(const StagedInputs& inputs);

}  // namespace cellrund::guest
