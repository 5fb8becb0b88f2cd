// One walk over /proc, shared by the probes that need to know every process: which namespaces exist and who holds them,
// which processes name the cell, which open files are the cell's. Internal to residue.
//
// A process that ends under the walk is skipped; one that may not be read makes the walk partial, which the probes that
// use it report as "could not look".
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.hpp"
#include "base/process.hpp"
#include "residue/subject.hpp"

namespace cellrund::residue {

struct Walker {
  pid_t pid = 0;
  std::uint64_t start_time = 0;
  std::string comm;
  bool exiting = false;
};

// How a namespace is held: "ns/net" (a member), "task/7/ns/net" (a thread), "fd/12" (a descriptor).
struct NamespaceHolder {
  pid_t pid = 0;
  std::string via;
};

struct ClaimedProcess {
  Walker process;
  std::string why;
};

struct ClaimedFile {
  Walker process;
  std::string via;     // "fd/3", "cwd", "root"
  std::string target;  // what readlink(2) says, " (deleted)" included
  std::string why;
};

struct Walk {
  std::map<std::uint64_t, std::vector<NamespaceHolder>> network;  // by inode
  std::map<std::uint64_t, std::vector<NamespaceHolder>> mount;  // 0: of a process that does not tell its namespace
  std::vector<ClaimedProcess> processes;
  std::vector<ClaimedFile> files;
  std::vector<std::string> failures;  // what could not be read; one line per kind of failure, with a count
  // Set when a security module keeps even root out of PID 1's descriptors and namespaces. Init is as trusted as the
  // kernel and no descendant of ours, so this alone does not make the host unknowable; the report names it. Its mounts,
  // cgroup and identity are readable regardless, and are looked at. Any other closed process is a failure.
  std::string closed_init;
};

// Who a process is, read through its own /proc folder. kNotFound when it ended.
base::Result<Walker> identify(const std::string& proc, pid_t pid);

// Some process that is in the namespace right now; nullopt when there is none. `type` is "net" or "mnt".
std::optional<pid_t> member_of_namespace(const std::string& proc, std::string_view type, std::uint64_t inode);

// Ends early, with a failure, at the deadline.
[[nodiscard]] Walk walk_processes(const Subject& subject, base::Deadline deadline);

}  // namespace cellrund::residue
