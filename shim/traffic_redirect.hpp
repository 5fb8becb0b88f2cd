// tc by rtnetlink: a clsact qdisc and one filter with a mirred redirect, on each of two links (tc-mirred(8), tc-u32(8),
// linux/rtnetlink.h).
#pragma once

#include "base/result.hpp"

namespace cellrund::shim {

// Every frame that arrives on one link leaves through the other, before any protocol of the namespace sees it. In the
// network namespace of the caller.
base::Status redirect_both_ways(unsigned first_index, unsigned second_index);

}  // namespace cellrund::shim
