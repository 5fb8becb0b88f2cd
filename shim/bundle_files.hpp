// What the shim leaves in a bundle for others: containerd (address, shim.pid), the daemon (cellrun-vm.json,
// cellrun-exit.json) and its own `delete` command (cellrun-vmm.pid, cellrun-shim.json). All files are written whole or
// not at all, and are readable by root alone.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.hpp"
#include "base/process.hpp"
#include "base/result.hpp"

namespace cellrund::shim {

inline constexpr const char* kAddressFile = "address";
inline constexpr const char* kShimPidFile = "shim.pid";
inline constexpr const char* kVmmPidFile = "cellrun-vmm.pid";
inline constexpr const char* kOwnedFile = "cellrun-shim.json";
inline constexpr const char* kVmFile = "cellrun-vm.json";
inline constexpr const char* kExitFile = "cellrun-exit.json";

// cellrun-vmm.pid: "<pid> <start time>", written before the VMM's first instruction.
base::Status write_vmm_pid(const std::string& bundle, const base::ProcessId& vmm);
// kNotFound when no VMM was ever made in this bundle.
base::Result<base::ProcessId> read_vmm_pid(const std::string& bundle);

// cellrun-shim.json: what `delete` has to take down when the shim itself no longer can.
struct Owned {
  base::ProcessId shim;
  std::string socket_path;
  std::string cgroup_path;     // empty: none yet
  bool cgroup_is_ours = false; // made by the shim, so removed by it; else cellrund's
};
base::Status write_owned(const std::string& bundle, const Owned& owned);
base::Result<Owned> read_owned(const std::string& bundle);

// cellrun-vm.json, written right after START was sent.
struct VmFacts {
  std::string vmm_path, vmm_digest, vmm_version;
  base::ProcessId vmm;
  int seccomp = 0;
  std::uint32_t uid = 0;
  bool no_new_privs = false;
  std::string effective_capabilities;
  base::ProcessId shim;
  std::string accel;
  std::string kernel_digest, initrd_digest;
  std::string guest_kernel_release;  // the guest's claim
  base::BootTime started;
  std::optional<base::BootTime> deadline;
};
base::Status write_vm_facts(const std::string& bundle, const VmFacts& facts);

// How a task ended. `value` is an exit code, a signal number, 126 or 127, or 0, by kind.
enum class EndKind { kExited, kSignaled, kExecFailed, kVmmDied, kAgentUnreachable, kProtocolError };
[[nodiscard]] std::string_view to_string(EndKind kind) noexcept;

struct End {
  EndKind kind = EndKind::kVmmDied;
  int value = 0;
  std::string message;  // in part the guest's words: untrusted, printable
  bool guest_oom_killed = false;
  bool guest_pids_exhausted = false;
  bool guest_disk_full = false;
  std::optional<base::BootTime> deadline_fired;
  std::vector<std::string> ladder;  // "TERM@<boot ns>", "KILL@…", "VMM@…": what the shim did to end it
  base::BootTime ended;
  std::vector<std::pair<std::string, base::BootTime>> revoked;  // secrets that were withdrawn before the end
};
// What containerd is told: exit code; 128+n for a signal; 126 or 127; 137 for a machine that was killed; 255 else.
[[nodiscard]] std::uint32_t exit_status(const End& end) noexcept;
[[nodiscard]] std::string encode(const End& end);
// cellrun-exit.json, written before TaskExit is published.
base::Status write_end(const std::string& bundle, std::string_view report);

}  // namespace cellrund::shim
