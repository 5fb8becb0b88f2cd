// A compiled policy in the kernel's maps: written once, and read back for the proof that they hold exactly that. Beside it
// the map of addresses that names have, which is written while the cell runs.
#pragma once

#include <string>

#include "base/result.hpp"
#include "netpolicy/policy.hpp"

namespace cellrund::netpolicy {

base::Status write_policy(const CompiledPolicy& policy, int deny_fd, int allow_fd);

// The named map, whose entries come and go. A missing one is removed already.
base::Status put_named(int named_fd, const NamedService& service, const NamedEntry& entry);
base::Status erase_named(int named_fd, const NamedService& service);

// map_digest() of what the maps hold. Time and memory grow with the number of entries, some microseconds each.
base::Result<std::string> read_policy_digest(int deny_fd, int allow_fd);

}  // namespace cellrund::netpolicy
