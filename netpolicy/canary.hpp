// The canary: frames that the policy does not allow, sent on the real path before anything runs in the cell, and again after
// its end. Proven is that each was counted by the filter under the reason it deserves, and that none came out behind it.
//
// "Behind it" is a packet socket bound to one interface and to IPv4: the kernel hands frames to such sockets after the
// tc hooks, unlike sockets for all protocols, which see them before (__netif_receive_skb_core in net/core/dev.c).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/clock.hpp"
#include "base/fd.hpp"
#include "base/file.hpp"
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

struct Probe {
  base::Bytes frame;
  cr_decision_key key{};  // under which it is to be counted; `reason` is the verdict that it deserves
};

// What one canary sends.
struct Probes {
  std::vector<Probe> out;
  Probe in;  // towards the cell
};

// A frame of our own that the policy lets through is left out; an expected target that it lets through is
// kFailedPrecondition.
base::Result<Probes> canary_probes(const cr_config& config, const CompiledPolicy& policy,
                                   std::span<const model::ExpectBlocked> expect_blocked);

// Both ends must be up and otherwise silent. kFailedPrecondition when a frame came through or was not counted exactly.
base::Result<CanaryResult> run_canary(const CanarySide& cell, const CanarySide& router, const Probes& probes, int counters_fd,
                                      int decisions_fd, base::Deadline deadline);

// The same beside whatever a cell that has ended left on its way: nobody else sends frames like these, but others are
// counted too. `cut`: counted because the cell's network had been cut before, whatever the policy says.
struct EndCanaryResult {
  CanaryResult canary;
  std::uint64_t cut = 0;
};
base::Result<EndCanaryResult> run_end_canary(const CanarySide& cell, const CanarySide& router, const Probes& probes, int counters_fd,
                                             int decisions_fd, base::Deadline deadline);

}  // namespace cellrund::netpolicy
