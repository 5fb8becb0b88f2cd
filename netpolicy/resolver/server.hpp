// The sockets of a cell's resolver around its engine. Runs in the box, single-threaded, until the daemon closes the
// channel.
#pragma once

#include "base/file.hpp"
#include "base/result.hpp"
#include "netpolicy/resolver/orders.hpp"

namespace cellrund::netpolicy::resolver {

// On the descriptors of orders.hpp. Success: the daemon has closed the channel.
base::Status serve(Orders orders);

// One message to the daemon; waits while it is busy.
base::Status tell_daemon(base::BytesView message);

}  // namespace cellrund::netpolicy::resolver
