// Router::prove_end(): the canary again, when the workload has ended.
#include "netpolicy/canary.hpp"
#include "netpolicy/filter.hpp"
#include "netpolicy/names.hpp"
#include "netpolicy/netns.hpp"
#include "netpolicy/router.hpp"
#include "netpolicy/router_state.hpp"
#include "netpolicy/rtnl.hpp"

namespace cellrund::netpolicy {
namespace {

constexpr auto kBudget = std::chrono::seconds(5);

struct Side {
  base::UniqueFd packets;
  std::uint32_t ifindex = 0;
};

base::Result<Side> open_side(int netns, const std::string& link) {
  return in_netns(netns, [&]() -> base::Result<Side> {
    Rtnl rtnl = CR_TRY(Rtnl::open());
    const std::uint32_t ifindex = CR_TRY(rtnl.link_index(link));
    return Side{CR_TRY(open_packet_socket()), ifindex};
  });
}

Router::EndProof judge(const EndCanaryResult& result) {
  const CanaryResult& canary = result.canary;
  Router::EndProof proof{{canary.sent, canary.blocked, canary.counted, false, {}}, false};
  if (canary.blocked != canary.sent) {
    proof.refuted = true;
    proof.canary.why =
        std::to_string(canary.sent - canary.blocked) + " of " + std::to_string(canary.sent) + " frames came through";
  } else if (canary.counted == canary.sent) {
    proof.canary.proven = true;
  } else if (result.cut != 0) {
    proof.canary.why = "the network had been cut before";
  } else {
    proof.refuted = true;
    proof.canary.why = std::to_string(canary.sent - canary.counted) + " of " + std::to_string(canary.sent) +
                       " frames were not counted";
  }
  return proof;
}

}  // namespace

base::Result<Router::EndProof> Router::prove_end(const NetworkedCell& cell) const {
  const std::string pins = pin_dir(state_->options.run_dir, cell.name());
  const base::UniqueFd counters = CR_TRY(open_pin(map_pin(pins, MapRole::kCounters)));
  const base::UniqueFd decisions = CR_TRY(open_pin(map_pin(pins, MapRole::kDecisions)));
  Side inside = CR_TRY(open_side(cell.netns_fd(), kCellInterface));
  Side outside = CR_TRY(open_side(state_->netns.get(), cell.name().host_link()));
  auto result = run_end_canary({inside.packets.get(), inside.ifindex}, {outside.packets.get(), outside.ifindex},
                               cell.probes_, counters.get(), decisions.get(), base::Deadline::after(kBudget));
  state_->closer.close_later(std::move(inside.packets));
  state_->closer.close_later(std::move(outside.packets));
  return judge(CR_TRY(std::move(result)));
}

}  // namespace cellrund::netpolicy
