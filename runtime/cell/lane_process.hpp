// The `process` lane (tier 0): cell-init as PID 1 of its own pid, mount, uts and ipc namespaces, on the host's kernel,
// spoken to over a socketpair with the same protocol as a guest. For labs, tests and measurements of the control path;
// it is no boundary against hostile code.
#pragma once

#include <memory>
#include <string>

#include "cell/lane.hpp"

namespace cellrund::cell {

// kNotFound when `cell_init` is not there.
base::Result<std::unique_ptr<Lane>> make_process_lane(const std::string& cell_init);

}  // namespace cellrund::cell
