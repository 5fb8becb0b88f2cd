// PID 1 of a workload's pid namespace; see cell.hpp for its place.
#pragma once

#include "base/fd.hpp"
#include "shim/wire/workload.hpp"

namespace cellrund::guest {

// Datagrams on the SOCK_SEQPACKET pair between the agent and the namespace init.
// Down: one byte, kStartCommand or a signal number. Up: one of the reports; kReportEnded is followed by an encoded Exit.
inline constexpr unsigned char kStartCommand = 0;
inline constexpr unsigned char kReportPrepared = 1;
inline constexpr unsigned char kReportStarted = 2;
inline constexpr unsigned char kReportEnded = 3;

struct WorkloadStdio {
  base::UniqueFd in;
  base::UniqueFd out;
  base::UniqueFd err;
};

// Runs in a fresh child of a single-threaded process and does not return.
[[noreturn]] void run_namespace_init(const wire::Workload& workload, base::UniqueFd ctl, WorkloadStdio stdio) noexcept;

}  // namespace cellrund::guest
