// A compiled policy in the kernel's maps: written once, and read back for the proof that they hold exactly that.
#pragma once

#include <string>

#include "base/result.hpp"
#include "netpolicy/policy.hpp"

namespace cellrund::netpolicy {

base::Status write_policy(const CompiledPolicy& policy, int deny_fd, int allow_fd);

// map_digest() of what the maps hold. Time and memory grow with the number of entries, some microseconds each.
base::Result<std::string> read_policy_digest(int deny_fd, int allow_fd);

}  // namespace cellrund::netpolicy
