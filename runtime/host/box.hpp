// A box: one of our own helper programs, run where hostile bytes can do no harm.
//
// Outside (this header): own user, mount, pid, network, ipc, uts and cgroup namespaces from birth, root inside being an
// unprivileged uid range outside, no inherited descriptors, a wall-clock deadline kept by pidfd. Inside
// (host/confine.hpp, called by the helper itself before it reads a hostile byte): a root of its own, no capabilities
// but named ones over its own namespace, no_new_privs, rlimits, a seccomp allow-list.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.hpp"
#include "base/process.hpp"
#include "base/result.hpp"
#include "base/until.hpp"

namespace cellrund::host {

// An unprivileged range of host ids that box ids 0 … count-1 map to.
struct BoxIds {
  std::uint32_t base = 1'879'048'192;  // 0x7000_0000: above login users, systemd's container range and DynamicUser
  std::uint32_t count = 65536;
};

struct BoxOptions {
  std::string program;                   // absolute path of the helper
  std::vector<std::string> args;         // after argv[0]
  std::vector<std::pair<int, int>> fds;  // numbers above 2 in the box; 0 is the request, 1 the result, 2 messages
  BoxIds ids;
  int cgroup_fd = -1;            // v2 cgroup to be born into; -1: ours
  bool keep_network = false;     // the network namespace of the calling thread, in which the box has no capability
  bool die_with_caller = false;  // SIGKILL when the calling *thread* ends; run_box() sets it
};

struct BoxResult {
  base::ExitStatus exit;
  std::string out;  // what it wrote to descriptor 1, untrusted
  std::string err;  // what it wrote to descriptor 2, untrusted
};

// Starts the helper with `request` as a sealed memfd on descriptor 0 and `result_fd`, `message_fd` on 1 and 2
// (-1: /dev/null). For helpers that live long. Killing the pidfd kills everything in the box (it is PID 1 there).
base::Result<base::PidFd> start_box(const BoxOptions& options, std::string_view request, int result_fd, int message_fd);

// Runs the helper to its end. kDeadlineExceeded or kCancelled when it had to be killed; kResourceExhausted when it wrote more than
// `result_limit` bytes of result. Postcondition in every case: no process of the box is left.
base::Result<BoxResult> run_box(const BoxOptions& options, std::string_view request, const base::Until& until,
                                std::size_t result_limit = 65536);

}  // namespace cellrund::host
