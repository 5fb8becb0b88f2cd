// Static IPv4 for one interface of the caller's network namespace.
#pragma once

#include "base/result.hpp"
#include "shim/wire/workload.hpp"

namespace cellrund::guest {

base::Status bring_up_loopback();
// Address, MTU, MAC, permanent neighbour for the gateway, default route; the interface is up afterwards.
base::Status configure_network(const wire::NetworkConfig& config);

}  // namespace cellrund::guest
