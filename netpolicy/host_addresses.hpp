// The host's own addresses, which no cell may reach whatever its rules say.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.hpp"

namespace cellrund::netpolicy {

// Every IPv4 address of every interface of the calling thread's namespace (getifaddrs(3)), in host byte order, each once.
base::Result<std::vector<std::uint32_t>> host_addresses();

}  // namespace cellrund::netpolicy
