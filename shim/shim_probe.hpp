// The commands that concern no task: `probe`, `-v` and `-info`.
#pragma once

#include "base/result.hpp"
#include "shim/command_line.hpp"

namespace cellrund::shim {

// Prints {"accel":…,"why":…,"tscKhz":…} after a real boot, or from memory.
base::Status run_probe(const CommandLine& line);
base::Status print_version();
// containerd.types.RuntimeInfo in protobuf (containerd 2.0 and later).
base::Status print_info();

}  // namespace cellrund::shim
