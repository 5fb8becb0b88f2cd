// Starts a VMM that owns nothing: a uid of its own, no capabilities, no_new_privs, its own pid, mount, ipc, uts and
// network namespaces, a root file system with just the host's programs and five device nodes, its cgroup, rlimits, and
// only the descriptors it is given. Single-threaded callers only: the child is forked, and dies with the thread that
// forked it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/process.hpp"
#include "base/result.hpp"

namespace cellrund::shim {

struct LaunchPlan {
  std::vector<std::string> argv;          // argv[0] absolute
  std::vector<std::pair<int, int>> fds;   // (ours, theirs); theirs from 3 upwards without a gap of importance
  int error_fd = -1;                      // becomes the VMM's standard output and error
  int netns_fd = -1;                      // -1: a fresh, empty network namespace
  std::uint32_t uid = 0;                  // and gid; never 0
  bool kvm = false;                       // put /dev/kvm into the private /dev
  std::uint64_t largest_file_bytes = 0;   // RLIMIT_FSIZE: what the guest may write to its scratch disk
};

// Called in the parent while the child exists but has run nothing: the place for cgroups and for writing down its
// identity. A failure ends the child.
using BeforeExec = std::function<base::Status(const base::ProcessId&)>;

// Postcondition of success: the program runs (its exec succeeded). On failure no child is left, and the error names the
// step that failed.
base::Result<base::PidFd> launch_vmm(const LaunchPlan& plan, const BeforeExec& before_exec);

}  // namespace cellrund::shim
