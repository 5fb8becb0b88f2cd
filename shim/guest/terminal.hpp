// A pseudo-terminal of the workload's own devpts (pty(7)).
#pragma once

#include "base/fd.hpp"
#include "base/result.hpp"
#include "shim/wire/messages.hpp"

namespace cellrund::guest {

struct Terminal {
  base::UniqueFd master;  // non-blocking
  base::UniqueFd slave;   // belongs to `uid`
};

// Inside the workload's root.
base::Result<Terminal> open_terminal(wire::WindowSize size, uid_t uid);
base::Status set_window_size(int terminal_fd, wire::WindowSize size);

}  // namespace cellrund::guest
