// What proc_net_dev(5) counts of an interface, in the calling thread's namespace.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/result.hpp"

namespace cellrund::bench {

// The number of the column, from one.
enum class LinkCounter { kReceived = 2, kDroppedSending = 12 };

base::Result<std::uint64_t> link_counter(std::string_view interface, LinkCounter counter);

}  // namespace cellrund::bench
