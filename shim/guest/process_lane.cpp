#include "shim/guest/process_lane.hpp"

#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <utility>

#include "shim/guest/network.hpp"

namespace cellrund::guest {

using base::Errc;
using base::Error;

base::Result<base::UniqueFd> ProcessLane::open_channel() {
  if (::getpid() != 1) {
    return Error(Errc::kFailedPrecondition, "process lane: not PID 1 of a pid namespace");
  }
  (void)::setpriority(PRIO_PROCESS, 0, -20);  // best effort: a spinning workload shares our cgroup
  base::UniqueFd channel(kControlFd);
  CR_CHECK(base::set_inherit(channel.get(), false).context("control socket"));
  CR_CHECK(base::set_nonblocking(channel.get(), true));
  return channel;
}

base::Status ProcessLane::add_entropy(base::BytesView) {
  return Error(Errc::kUnimplemented, "process lane: the entropy pool is the host's own");
}

base::Status ProcessLane::set_clock(std::int64_t) {
  return Error(Errc::kUnimplemented, "process lane: the clock is the host's own");
}

base::Status ProcessLane::prepare(const wire::Workload& workload) {
  if (!workload.process) {
    return Error(Errc::kInvalidArgument, "process lane: workload names no descriptors");
  }
  // This process has one thread, and nothing in it needs the old network again.
  const base::UniqueFd netns(workload.process->netns_fd);
  if (::setns(netns.get(), CLONE_NEWNET) != 0) {
    return Error::from_errno("join network namespace");
  }
  if (workload.process->outputs_fd >= 0) {
    outputs_.reset(workload.process->outputs_fd);
    CR_CHECK(base::set_inherit(outputs_.get(), false).context("outputs socket"));
    CR_CHECK(base::set_nonblocking(outputs_.get(), true));
  }
  CR_CHECK(bring_up_loopback());
  return workload.network ? configure_network(*workload.network) : base::ok();
}

base::Result<base::UniqueFd> ProcessLane::open_outputs() { return std::move(outputs_); }

void ProcessLane::complain(std::string_view line) noexcept {
  (void)base::write_all(STDERR_FILENO, base::as_bytes(std::string(line) + "\n"));  // whoever started us may keep it
}

void ProcessLane::leave(int status) noexcept { ::_exit(status); }

}  // namespace cellrund::guest
