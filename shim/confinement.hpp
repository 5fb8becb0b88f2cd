// What the shim takes from itself once its VMM runs, before the guest has said a word: from then on it parses bytes of a hostile
// guest, and needs of root's powers only the one to kill its VMM.
#pragma once

#include "base/result.hpp"

namespace cellrund::shim {

// kCommands: containerd is too old to take events over its socket, so they go by a command that is run for each.
enum class Events { kSocket, kCommands };

// Single-threaded, once. Keeps CAP_KILL of all capabilities, sets no_new_privs, and denies (EPERM) the system calls by which a
// process gets at another one, the kernel, namespaces, mounts or the network; with kSocket also every fork and exec.
// docs/ARCHITECTURE.md says what this does not stop. On failure the process is unfit to go on.
base::Status confine_shim(Events events);

}  // namespace cellrund::shim
