// The independent verifier: what of a cell (or of a node's dead cells) is still on this host?
//
// It shares no code with what creates or tears down; it reads kernel and containerd state by itself, through its own
// listings, and never changes anything. A source that could not be read makes the verdict UNKNOWN, never CLEAN.
//
// Probes, what each reads, and what it cannot see (docs/RESIDUE.md has the long form):
//   process     journalled pid + start time; cgroup.procs of the cell's cgroups; command lines of our runtimes that name
//               the cell; the VMM's uid. scan_node adds /proc/*/cgroup and environ. Not seen: processes of a PID
//               namespace that is not below ours.
//   cgroup      the cell's folder in every mounted hierarchy. Not seen: hierarchies mounted nowhere in our namespace.
//   netns       its bind mount; whether the kernel still has it, by file handle (6.18 and a journalled cookie); else, and to
//               name who holds it, /proc/*/ns/net and descriptors. Not seen by scan_cell on older kernels: a single
//               thread that sits in it (scan_node walks threads too), or a socket that was made in it.
//   link        RTM_GETLINK in the router's namespace and in ours, by name and by ifindex; scan_node: in every
//               network namespace that a process or descriptor holds.
//   mount       mountinfo of every mount namespace that has a process. Not seen: a mount namespace that only a
//               descriptor or a bind mount keeps alive.
//   bpf         every program, map and link id of the kernel; by journalled id and by name. Nothing escapes the id walk.
//   pin         the cell's folder in the node's bpffs, journalled paths; scan_node: every mounted bpffs.
//   containerd  container, task, leases, snapshots by id. containerd's own answer: see bundle and process beside it.
//   bundle      the bundle folders (also hidden ".ID") and the shim socket, on disk.
//   socket      sock_diag of our and the router's namespace. Not seen: abstract or unnamed sockets without marker.
//   file        journalled paths, <run>/cells/UID, marker names in the run folder.
//   open-file   cwd, root and descriptors of every process: files of the cell, deleted ones included. Not seen: files
//               that are only mapped, or in flight in a Unix socket.
//
// PID 1 may be closed even to root (a security module); its descriptors are then taken on trust and the report says so.
// Thread-safe; blocks until done, at most to the deadline. Enters network namespaces on throw-away threads only.
// Needs CAP_SYS_ADMIN, CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH, CAP_NET_ADMIN; without them the answer is UNKNOWN.
#pragma once

#include "base/clock.hpp"
#include "model/residue_report.hpp"
#include "residue/scope.hpp"

namespace cellrund::residue {

// After a teardown: cheap (one walk over /proc at most), asks only for what this cell can own.
[[nodiscard]] model::ResidueReport scan_cell(const CellScope& scope, base::Deadline deadline);

// The full audit. Objects of live cells, of other nodes and of the node itself (router, containerd) are not residue.
[[nodiscard]] model::ResidueReport scan_node(const NodeScope& scope, base::Deadline deadline);

}  // namespace cellrund::residue
