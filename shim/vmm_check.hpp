// Reads back from /proc what a launched VMM really is. Promises of launch.hpp become facts here, or the VMM does not run.
#pragma once

#include <optional>
#include <string>

#include "base/file.hpp"
#include "base/process.hpp"
#include "base/result.hpp"

namespace cellrund::shim {

struct VmmIdentity {
  std::uint32_t uid = 0;
  base::FileId program;  // /proc/PID/exe
  std::optional<base::FileId> network;  // /proc/PID/ns/net; nullopt: any but ours
};

struct VmmStatus {
  int seccomp = 0;
  bool no_new_privs = false;
  std::string effective_capabilities;  // hexadecimal, as the kernel writes it
};

// kFailedPrecondition names the first thing that is not as promised.
base::Result<VmmStatus> check_vmm(pid_t pid, const VmmIdentity& expected);

}  // namespace cellrund::shim
