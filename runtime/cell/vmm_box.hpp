// Is a VMM's box as this node declares it? The daemon asks the kernel itself, before START: the shim that made the box is
// another party. Every relaxation of the box is a line of this file or of vmm_box.cpp.
#pragma once

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "host/cgroup.hpp"
#include "host/process_facts.hpp"
#include "model/evidence.hpp"

namespace cellrund::cell {

struct DeclaredBox {
  std::uint32_t uid = 0;            // and gid: real, effective, saved and file system, of every thread
  base::FileId network;             // the cell's network namespace
  host::Namespaces host;            // the daemon's: the cell's mnt, pid, ipc, uts and net are others; user and cgroup are these
  base::FileId host_root;
  std::vector<base::FileId> images;  // regular files that it may have open, for reading alone
  std::set<std::uint64_t> unix_sockets;  // inode numbers of the host's Unix sockets
  bool kvm = false;                 // /dev/kvm and the descriptors that come of it
};

// What is not as declared, in words that name the property, such as "thread 12: seccomp is 0, not 2"; nullopt: all is.
// Pure.
std::optional<std::string> box_deviation(const host::ProcessFacts& found, const DeclaredBox& declared);

// For the record. Fields that only the shim knows stay empty.
[[nodiscard]] model::VmmFacts box_facts(const host::ProcessFacts& found);

// Inode numbers in a /proc/net/unix text; lines without one are passed over.
std::set<std::uint64_t> parse_unix_sockets(std::string_view text);

struct ProvenBox {
  base::PidFd process;
  model::VmmFacts facts;
};
// The whole proof of one running VMM: reads and compares all of the above and its place in every hierarchy of `cgroup`, whose
// only member it is; then makes sure that the process that was read still lives. kFailedPrecondition: something is not as
// declared, and the process has been sent SIGKILL.
base::Result<ProvenBox> prove_box(const base::ProcessId& vmm, DeclaredBox declared, const host::Cgroup& cgroup);

}  // namespace cellrund::cell
