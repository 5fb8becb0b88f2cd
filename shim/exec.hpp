// A process that joined a task, as containerd knows it by its exec id.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "base/clock.hpp"
#include "base/result.hpp"
#include "shim/process_stdio.hpp"
#include "shim/wire/workload.hpp"

namespace cellrund::shim {

struct TaskEnd {
  std::uint32_t status = 0;
  base::WallTime at;
};

struct Exec {
  enum class State { kCreated, kStarting, kRunning, kStopped };

  wire::Process process;
  StdioPaths paths;
  std::unique_ptr<ProcessStdio> stdio;
  State state = State::kCreated;
  std::uint32_t number = 0;                          // in the guest's session, while it is alive there
  std::function<void(base::Result<pid_t>)> started;  // of a Start that is not answered yet
  std::optional<TaskEnd> end;
};

}  // namespace cellrund::shim
