// From a fork of the namespace init to the workload's program: descriptors, session, limits, ids, exec.
#pragma once

#include <optional>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "shim/wire/messages.hpp"
#include "shim/wire/workload.hpp"

namespace cellrund::guest {

// With a terminal, all three are its other end.
struct WorkloadStdio {
  base::UniqueFd in;
  base::UniqueFd out;
  base::UniqueFd err;
};

struct LaunchedProcess {
  pid_t pid = 0;
  base::UniqueFd failure;  // readable when the exec has happened (end of file) or has failed
};

// Forks a single-threaded caller.
base::Result<LaunchedProcess> launch_process(const wire::Process& process, const WorkloadStdio& stdio);
// Reads `failure` once; blocks until it is readable. nullopt: the program runs.
base::Result<std::optional<wire::Exit>> read_launch(int failure_fd, const std::string& program);

}  // namespace cellrund::guest
