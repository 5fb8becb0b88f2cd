// The one way in which rulesets reach the kernel: `nft -f -`, one transaction per call (nft(8)). libnftables is not
// linked: its licence is GPL-2 alone.
#pragma once

#include <string>

#include "base/result.hpp"

namespace cellrund::netpolicy {

// In the calling thread's namespace. kFailedPrecondition with what nft says; nothing has changed then.
base::Status run_nft(const std::string& nft, const std::string& ruleset);

}  // namespace cellrund::netpolicy
