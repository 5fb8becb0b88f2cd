// Workload: all that cell-init needs to know to run one job's command. Made by the shim (from an OCI runtime spec) or
// by the daemon's process lane, encoded within 1 MiB, and sent in pieces. Plain values; no I/O.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.hpp"
#include "base/result.hpp"
#include "shim/wire/messages.hpp"
#include "shim/wire/outputs.hpp"

namespace cellrund::wire {

inline constexpr std::size_t kMaxWorkloadBytes = 1024 * 1024;

// Bit n stands for capability number n (capabilities(7)). Empty sets: the workload has none and can gain none.
struct CapabilitySets {
  std::uint64_t bounding = 0;
  std::uint64_t effective = 0;
  std::uint64_t permitted = 0;
  std::uint64_t inheritable = 0;
  std::uint64_t ambient = 0;
  friend bool operator==(const CapabilitySets&, const CapabilitySets&) = default;
};
// "CAP_NET_RAW" or "NET_RAW" → 13; nullopt for an unknown name.
[[nodiscard]] std::optional<unsigned> capability_number(std::string_view name) noexcept;

// A fresh tmpfs. `path` is made when it is missing in the image; no part of it may be a symbolic link.
struct TmpfsMount {
  std::string path;
  std::uint64_t size_bytes = 0;  // at least 4096
  std::uint32_t mode = 01777;
  friend bool operator==(const TmpfsMount&, const TmpfsMount&) = default;
};

// A small file put over the root file system before user code runs, such as /etc/resolv.conf. Owned by root.
struct FileEntry {
  std::string path;
  std::uint32_t mode = 0644;
  std::string content;  // all files together at most 256 KiB
  friend bool operator==(const FileEntry&, const FileEntry&) = default;
};

// RLIMIT_* number of x86-64 Linux (getrlimit(2)).
struct Rlimit {
  std::uint32_t resource = 0;
  std::uint64_t soft = 0;
  std::uint64_t hard = 0;
  friend bool operator==(const Rlimit&, const Rlimit&) = default;
};
// "RLIMIT_NOFILE" → 7; nullopt for an unknown name.
[[nodiscard]] std::optional<std::uint32_t> rlimit_number(std::string_view name) noexcept;

// Static IPv4; there is no DHCP, no ARP towards the gateway and no IPv6.
struct NetworkConfig {
  std::string interface = "eth0";
  std::array<std::uint8_t, 6> mac{};          // all zero: keep the device's own
  std::array<std::uint8_t, 4> address{};
  std::uint8_t prefix = 31;                   // 1 to 32
  std::array<std::uint8_t, 4> gateway{};      // all zero: no default route
  std::array<std::uint8_t, 6> gateway_mac{};  // permanent neighbour; all zero: none is set
  std::uint32_t mtu = 1500;                   // 576 to 65535
  friend bool operator==(const NetworkConfig&, const NetworkConfig&) = default;
};
// "100.64.0.1" and "02:00:00:00:00:01"; nullopt for anything else.
[[nodiscard]] std::optional<std::array<std::uint8_t, 4>> parse_ipv4(std::string_view text) noexcept;
[[nodiscard]] std::optional<std::array<std::uint8_t, 6>> parse_mac(std::string_view text) noexcept;

// The process lane: numbers of descriptors that `cell-init --process` was started with.
struct ProcessRoot {
  int rootfs_fd = -1;  // an EROFS image, opened read-only
  int netns_fd = -1;   // the network namespace to join
  int outputs_fd = -1;  // where the archive of /outputs goes; -1 exactly when the workload has no outputs
  friend bool operator==(const ProcessRoot&, const ProcessRoot&) = default;
};

// The job's files: one EROFS image whose folder "task" appears at /task, for reading, and whose folder "workspace" is what
// /workspace starts from. Everything in it belongs to the workload's user (the image was made so).
struct Inputs {
  std::string device = "/dev/vdb";    // microvm lane: block device with the image
  int image_fd = -1;                  // process lane: a number that `cell-init --process` was started with
  bool task = false;
  std::uint64_t workspace_bytes = 0;  // what the workload may write to /workspace (a tmpfs over the seed); 0: no /workspace
  friend bool operator==(const Inputs&, const Inputs&) = default;
};

// What one process of the workload is: its first, or one that joins it later.
struct Process {
  std::vector<std::string> args;  // args[0]: a path, or a name to look up in env's PATH
  std::vector<std::string> env;   // "NAME=value"
  std::string cwd = "/";          // the first process's is made when missing
  std::uint32_t uid = 65534;
  std::uint32_t gid = 65534;
  std::vector<std::uint32_t> additional_gids;
  CapabilitySets capabilities;
  bool no_new_privileges = true;
  bool seccomp = true;          // deny list against the kernel's administrative system calls
  std::uint32_t umask = 022;
  std::vector<Rlimit> rlimits;
  std::optional<WindowSize> terminal;  // present: stdin, stdout and stderr are one terminal; all output is stdout's
  friend bool operator==(const Process&, const Process&) = default;
};

struct Workload : Process {
  bool read_only_root = true;
  std::string hostname = "cell";
  // Writable layer over the root (an overlay on tmpfs) when the root is not read-only; 0: 64 MiB.
  std::uint64_t writable_root_bytes = 0;
  std::vector<TmpfsMount> tmpfs;
  std::vector<FileEntry> files;
  std::optional<NetworkConfig> network;
  std::uint64_t pids_max = 0;      // 0: no limit inside; microvm lane only (the host's cgroup holds the process lane)
  int stop_signal = 15;
  std::uint64_t deadline_ms = 0;   // from START; used by cell-init when START carries no absolute deadline; 0: none
  std::uint64_t grace_ms = 5000;   // between stop_signal and SIGKILL
  std::string rootfs_device = "/dev/vda";  // microvm lane: block device with the EROFS image
  std::optional<OutputsPlan> outputs;      // present: /outputs is there and is handed over at the end
  std::optional<ProcessRoot> process;      // present: process lane, `rootfs_device` is not used
  std::optional<Inputs> inputs;
  friend bool operator==(const Workload&, const Workload&) = default;
};

// Fails with kInvalidArgument (what is out of bounds) or kResourceExhausted (over 1 MiB).
base::Status validate(const Workload& workload);
base::Result<base::Bytes> encode(const Workload& workload);
// Every field present once and in order, nothing after the last; validated.
base::Result<Workload> decode_workload(base::BytesView bytes);

// A process that joins: kResourceExhausted over kMaxExecPayload.
base::Result<base::Bytes> encode_process(const Process& process);
base::Result<Process> decode_process(base::BytesView bytes);

}  // namespace cellrund::wire
