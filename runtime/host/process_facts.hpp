// What the kernel says of a process's confinement: credentials, namespaces and cgroups of every thread, root, mounts, open
// files. Reads alone, judges nothing (cell/vmm_box.hpp does). Needs CAP_SYS_PTRACE for processes of other users.
// Sources: proc(5), namespaces(7), cgroups(7), memfd_create(2).
#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/file.hpp"
#include "base/process.hpp"
#include "base/result.hpp"

namespace cellrund::host {

// Of one thread: each of these is a thread's own, not the process's.
struct Credentials {
  std::array<std::uint32_t, 4> uids{};  // real, effective, saved, file system
  std::array<std::uint32_t, 4> gids{};
  std::vector<std::uint32_t> groups;
  std::array<std::uint64_t, 5> capabilities{};  // inheritable, permitted, effective, bounding, ambient
  bool no_new_privs = false;
  int seccomp = -1;  // 0 off, 1 strict, 2 filter; -1: the kernel does not say
  std::vector<pid_t> namespace_pids;  // NSpid: outermost first
};
inline constexpr std::array<const char*, 5> kCapabilitySets{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"};

using Namespaces = std::map<std::string, base::FileId>;  // "mnt", "net", … as in /proc/PID/ns
// The kinds that are read; one that the kernel does not have is missing in a Namespaces.
inline constexpr std::array<const char*, 7> kNamespaceKinds{"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"};

struct ThreadFacts {
  pid_t tid = 0;
  Credentials credentials;
  Namespaces namespaces;
  std::string cgroups;  // /proc/PID/task/TID/cgroup, as it stands there
};

struct OpenFile {
  int number = -1;
  std::string target;      // readlink: "/dev/null", "socket:[1]", "anon_inode:[eventfd]"; a path of the opener's
  mode_t type = 0;         // S_IFMT part of st_mode; 0: it could not be looked at
  base::FileId id;
  std::uint64_t links = 0;  // 0: no name leads to it
  std::uint64_t device = 0;  // of a character or block device
  bool writable = false;     // fdinfo's access mode is not O_RDONLY
  int seals = -1;            // F_GET_SEALS of a regular file; -1: it has none
};

struct MountFacts {
  std::string point;
  std::string type;
  bool read_only = false;
};

struct ProcessFacts {
  base::ProcessId id;
  std::string program;  // where /proc/PID/exe leads to
  base::FileId root;
  std::vector<ThreadFacts> threads;  // the first is the process's own
  std::vector<MountFacts> mounts;
  std::vector<OpenFile> files;
  std::string arguments;  // /proc/PID/cmdline
};

// Everything is read through one descriptor of /proc/PID, so it is all of that very process: once it is gone each read
// fails. Threads are listed again until no new one shows, so none that was there at the end is left out.
// kNotFound: the process is gone, or its start time is another. kResourceExhausted: more threads, files or text than
// any process of ours has. `proc` is "/proc" but for tests.
base::Result<ProcessFacts> read_process(const base::ProcessId& id, const std::string& proc = "/proc");

// The calling process's.
base::Result<Namespaces> own_namespaces();

// The three texts, for a table of tests. kDataLoss names the line that is missing or malformed.
base::Result<Credentials> parse_credentials(std::string_view status);
base::Result<std::vector<MountFacts>> parse_mounts(std::string_view mountinfo);

}  // namespace cellrund::host
