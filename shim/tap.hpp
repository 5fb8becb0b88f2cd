// The card's way out: a tap device in the cell's network namespace, joined with the namespace's `eth0` frame by frame in
// both directions (tc + mirred), so that the guest's raw frames reach the filter on the other end of the veth.
// The device lives exactly as long as its descriptor (it is not persistent).
#pragma once

#include "base/fd.hpp"
#include "base/result.hpp"

namespace cellrund::shim {

// `netns_fd`: the cell's namespace, in which `eth0` exists. A throw-away child enters it; this process does not.
base::Result<base::UniqueFd> make_tap(int netns_fd);

}  // namespace cellrund::shim
