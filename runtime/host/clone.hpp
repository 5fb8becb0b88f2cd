// clone3(2) + execve(2) from a process with threads: namespaces, a cgroup and identities at birth, a pidfd back.
//
// The child runs no code but the few system calls of clone.cpp between its birth and its exec: no allocation, no lock,
// no libc call that touches shared state. Without id maps the child borrows our memory and the calling thread waits for
// its exec (as vfork(2) does), which keeps the cost independent of the size of this process.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/process.hpp"
#include "base/result.hpp"

namespace cellrund::host {

struct IdRange {
  std::uint32_t inside = 0;
  std::uint32_t outside = 0;
  std::uint32_t count = 0;
};

struct Identity {
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
};

// What the child gets. No descriptor is inherited that is not listed, whatever its close-on-exec flag says.
struct CloneOptions {
  std::vector<std::string> argv;
  std::vector<std::string> env;          // "NAME=value"
  int program_fd = -1;                   // run this open file (execveat(2)) instead of the path argv[0]
  std::vector<std::pair<int, int>> fds;  // (our descriptor, number in the child < 256); 0-2 default to /dev/null
  std::uint64_t namespaces = 0;          // CLONE_NEW* flags
  int cgroup_fd = -1;                    // a v2 cgroup directory: CLONE_INTO_CGROUP (5.7)
  std::vector<IdRange> id_map;           // with CLONE_NEWUSER: for uids and gids alike
  std::optional<Identity> identity;      // set last, supplementary groups dropped; inside the new namespaces
  bool no_new_privs = false;
  bool new_session = false;
  int parent_death_signal = 0;  // tied to the calling *thread* (PR_SET_PDEATHSIG)
  std::string working_dir;
};

// Postcondition of success: the program runs (its exec succeeded) with default signal handlers and an empty signal
// mask, and the pidfd refers to it. On failure no child is left, and the message names the step that failed.
base::Result<base::PidFd> clone_and_exec(const CloneOptions& options);

}  // namespace cellrund::host
