#include "cell/lane.hpp"

#include <fcntl.h>

namespace cellrund::cell {

base::Result<KillTarget> kill_target_of(const host::Cgroup& cgroup, const std::vector<base::ProcessId>& processes) {
  KillTarget target;
  if (auto folder = cgroup.open_v2(); folder.ok()) {
    if (auto kill = base::open_at(folder->get(), "cgroup.kill", O_WRONLY); kill.ok()) {
      target.cgroup_kill = std::move(kill).value();
    }
  }
  for (const base::ProcessId& id : processes) {
    if (auto process = base::PidFd::open(id); process.ok()) {
      target.processes.push_back(std::move(process).value());
    } else if (process.error().code() != base::Errc::kNotFound) {
      return std::move(process).error();
    }
  }
  if (!target.cgroup_kill && target.processes.empty() && !processes.empty()) {
    return base::Error(base::Errc::kNotFound, "the cell has no process left to kill");
  }
  return target;
}

}  // namespace cellrund::cell
