// `start`: makes the task's socket, starts the serving shim on it, and prints its address.
#pragma once

#include "base/result.hpp"
#include "shim/command_line.hpp"

namespace cellrund::shim {

// Where the shim of a task listens: containerd's own formula, so that others can find it (containerd
// runtime/v2/shim/util_unix.go, SocketAddress).
[[nodiscard]] std::string socket_path_of(std::string_view containerd_address, std::string_view ns, std::string_view id);

// This program's own file.
base::Result<std::string> self_path();

// Working directory: the bundle. Standard input: what containerd writes there. Success leaves exactly one line on
// standard output and nothing on standard error, because containerd 1.6 reads both as the address. On failure no
// process and no socket is left.
base::Status run_start(const CommandLine& line);

}  // namespace cellrund::shim
