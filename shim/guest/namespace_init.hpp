// PID 1 of a workload's pid namespace; see cell.hpp for its place.
#pragma once

#include "base/fd.hpp"
#include "shim/guest/launch.hpp"
#include "shim/wire/workload.hpp"

namespace cellrund::guest {

// Datagrams on the SOCK_SEQPACKET pair between the agent and the namespace init; the first byte tells which.
// Down: kStartCommand, or a signal number, for the first process. For those that join it:
inline constexpr unsigned char kStartCommand = 0;
inline constexpr unsigned char kExecCommand = 128;        // u32 number, encode_process(); stdin, stdout, stderr as descriptors
                                                          // unless it has a terminal
inline constexpr unsigned char kExecSignalCommand = 129;  // u32 number, u8 signal
// Up. The agent's end of a terminal comes as a descriptor with kReportPrepared, or kReportExecStarted.
inline constexpr unsigned char kReportPrepared = 1;
inline constexpr unsigned char kReportStarted = 2;
inline constexpr unsigned char kReportEnded = 3;        // an encoded Exit
inline constexpr unsigned char kReportExecStarted = 4;  // u32 number
inline constexpr unsigned char kReportExecEnded = 5;    // u32 number, an encoded Exit
inline constexpr unsigned char kReportSecrets = 6;      // before kReportPrepared: the folder for them, as a descriptor

// Runs in a fresh child of a single-threaded process and does not return. `outputs`: the mount of /outputs, if it has one.
[[noreturn]] void run_namespace_init(const wire::Workload& workload, base::UniqueFd ctl, WorkloadStdio stdio,
                                     base::UniqueFd outputs) noexcept;

}  // namespace cellrund::guest
