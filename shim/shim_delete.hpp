// `delete`: called by containerd after a shim died, and after every normal end as well. Takes down by identity what the
// bundle's files name, whatever state they are in.
#pragma once

#include "base/result.hpp"
#include "shim/command_line.hpp"

namespace cellrund::shim {

// Idempotent; within containerd's 5 s. Prints a DeleteResponse even when something could not be removed: that goes to
// the log (standard error), and the next call tries again.
base::Status run_delete(const CommandLine& line);

}  // namespace cellrund::shim
