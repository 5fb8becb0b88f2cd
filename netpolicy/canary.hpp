// The canary: frames that the policy does not allow, sent on the real path before anything runs in the cell. Proven is that each
// was counted by the filter under the reason it deserves, and that none came out behind it.
//
// "Behind it" is a packet socket bound to one interface and to IPv4: the kernel hands frames to such sockets after the
// tc hooks, unlike sockets for all protocols, which see them before (__netif_receive_skb_core in net/core/dev.c).
#pragma once

#include <cstdint>
#include <span>

#include "base/clock.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"
#include "ebpf/egress_abi.h"
#include "model/job_spec.hpp"
#include "netpolicy/policy.hpp"

namespace cellrund::netpolicy {

// An unbound packet socket in the calling thread's namespace: receives nothing until run_canary() binds it.
base::Result<base::UniqueFd> open_packet_socket();

struct CanarySide {
  int socket = -1;
  std::uint32_t ifindex = 0;
};

struct CanaryResult {
  std::uint64_t sent = 0;
  std::uint64_t blocked = 0;  // sent and not seen behind the filter
  std::uint64_t counted = 0;  // by the filter, under the expected reasons
};

// Both ends must be up and otherwise silent. kFailedPrecondition when a frame came through or was not counted exactly.
// A frame of our own that the policy lets through is left out; an expected target that it lets through is a failure, and
// nothing is sent then.
base::Result<CanaryResult> run_canary(const CanarySide& cell, const CanarySide& router, const cr_config& config,
                                      const CompiledPolicy& policy, int counters_fd, int decisions_fd,
                                      std::span<const model::ExpectBlocked> expect_blocked, base::Deadline deadline);

}  // namespace cellrund::netpolicy
