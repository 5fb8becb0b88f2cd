// What the shim and its broker take from themselves once the VMM runs, before the guest has said a word: from then on the
// shim parses bytes of a hostile guest, and the broker takes requests of a shim that may be the guest's.
#pragma once

#include <span>
#include <string>

#include "base/result.hpp"

namespace cellrund::shim {

// Both: single-threaded, once. On failure the process is unfit to go on.

// Leaves no capability, no_new_privs, and a deny list (EPERM): no fork or exec, no new socket or connection, no signal to
// another process, no file opened for writing, made, renamed or removed, and nothing of namespaces, mounts, tracing or the
// kernel. Where the kernel has Landlock, files can be opened only below the folders `readable`, for reading. Returns Landlock's
// version, 0 where there is none. docs/ARCHITECTURE.md says what this does not stop.
base::Result<int> confine_shim(std::span<const std::string> readable);

// kCommands: containerd is too old to take events over its socket, so they go by a command that is run for each.
enum class Events { kSocket, kCommands };
// Leaves CAP_KILL and CAP_DAC_READ_SEARCH, no_new_privs, and the part of the list that names other processes' memory, namespaces, mounts and the
// kernel; with kSocket also no fork, no exec, and no socket that is not Unix.
base::Status confine_broker(Events events);

}  // namespace cellrund::shim
