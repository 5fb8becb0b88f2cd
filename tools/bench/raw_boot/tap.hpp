// A tap device that leads nowhere, for a guest that sees the same card as in a cell.
#pragma once

#include "base/fd.hpp"

namespace cellrund::bench {

// In this process's network namespace, which must be one that nobody else uses.
base::Result<base::UniqueFd> make_lone_tap();

}  // namespace cellrund::bench
