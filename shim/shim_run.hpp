// `serve`: the long-lived part of the shim, started by `start` with the listening socket, in its own session.
#pragma once

#include "base/result.hpp"
#include "shim/command_line.hpp"

namespace cellrund::shim {

inline constexpr int kListenerFd = 3;

// Returns when containerd has shut the shim down, or on SIGTERM after the cell is dead. Working directory: the bundle.
base::Status run_serve(const CommandLine& line);

}  // namespace cellrund::shim
