// The stand-in's own seccomp filter: QEMU brings one, and the shim runs no VMM without.
#pragma once

#include "base/result.hpp"

namespace cellrund::bench {

// From here on: read, write, wait, use memory, end. Anything else kills the process.
base::Status apply_seccomp();

}  // namespace cellrund::bench
