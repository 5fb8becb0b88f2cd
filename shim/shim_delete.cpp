#include "shim/shim_delete.hpp"

#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <vector>

#include "base/clock.hpp"
#include "base/file.hpp"
#include "base/log.hpp"
#include "base/process.hpp"
#include "containerd_shim.pb.h"
#include "host/cgroup.hpp"
#include "shim/bundle_files.hpp"
#include "shim/shim_start.hpp"

namespace cellrund::shim {
namespace {

using base::Deadline;
using base::Errc;
using base::Error;
using base::Status;

// containerd gives 5 s in all.
constexpr std::chrono::milliseconds kBudget(4000);
constexpr std::uint32_t kKilled = 128 + SIGKILL;

// Success when that very process is gone, or was never there.
Status end_process(const base::ProcessId& id, Deadline deadline) {
  const auto process = base::PidFd::open(id);
  if (!process.ok()) {
    return process.error().code() == Errc::kNotFound || process.error().os_errno() == ESRCH
               ? base::ok()
               : Status(process.error().clone());
  }
  CR_CHECK(process->signal(SIGKILL));
  if (!CR_TRY(process->wait_exit(deadline))) {
    return Error(Errc::kDeadlineExceeded, "process " + std::to_string(id.pid) + " does not die");
  }
  return base::ok();
}

void collect(std::vector<Error>& failures, std::string_view step, Status status) {
  if (!status.ok()) {
    failures.push_back(std::move(status).error().context(step));
  }
}

}  // namespace

Status run_delete(const CommandLine& line) {
  const Deadline deadline = Deadline::after(kBudget);
  const std::string bundle = line.bundle.empty() ? "." : line.bundle;
  std::vector<Error> failures;
  // The shim first: a live one would react to the death of its VMM.
  const auto owned = read_owned(bundle);
  if (owned.ok()) {
    collect(failures, "end the shim", end_process(owned->shim, deadline));
  } else if (owned.error().code() != Errc::kNotFound) {
    failures.push_back(owned.error().clone());
  }
  const auto vmm = read_vmm_pid(bundle);
  if (vmm.ok()) {
    collect(failures, "end the VMM", end_process(*vmm, deadline));
  } else if (vmm.error().code() != Errc::kNotFound) {
    failures.push_back(vmm.error().clone());
  }
  if (owned.ok() && owned->cgroup_is_ours && !owned->cgroup_path.empty()) {
    if (const auto tree = host::CgroupTree::discover(); tree.ok()) {
      if (const auto group = tree->adopt(owned->cgroup_path); group.ok()) {
        for (const Error& failure : group->destroy(deadline)) {
          failures.push_back(failure.clone());
        }
        tree->remove_empty_parents(owned->cgroup_path);
      }
    } else {
      failures.push_back(tree.error().clone());
    }
  }
  // The shim itself never mounts here; containerd's mount manager, or an earlier runtime, may have.
  if (::umount2((bundle + "/rootfs").c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) != 0 && errno != EINVAL && errno != ENOENT) {
    failures.push_back(Error::from_errno("unmount rootfs"));
  }
  collect(failures, "socket",
          base::remove_file(socket_path_of(line.address, line.containerd_namespace, line.id)));
  for (const Error& failure : failures) {
    base::log::error("delete " + line.id + ": " + failure.message());
  }
  shimapi::DeleteResponse response;
  response.set_pid(vmm.ok() ? static_cast<std::uint32_t>(vmm->pid) : 0);
  response.set_exit_status(kKilled);
  const base::WallTime now = base::WallTime::now();
  response.mutable_exited_at()->set_seconds(now.seconds);
  response.mutable_exited_at()->set_nanos(now.nanos);
  return base::write_all(STDOUT_FILENO, base::as_bytes(response.SerializeAsString()));
}

}  // namespace cellrund::shim
