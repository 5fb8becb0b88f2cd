#include "netpolicy/spare.hpp"

#include <array>
#include <cstdio>

#include "crypto/random.hpp"
#include "netpolicy/canary.hpp"
#include "netpolicy/names.hpp"
#include "netpolicy/netns.hpp"

namespace cellrund::netpolicy {
namespace {

// Unique among the spares of all daemons that this router namespace has seen, dying ones included.
base::Result<std::string> spare_link(const model::NodeTag& node) {
  std::array<std::uint8_t, 2> random{};
  CR_CHECK(crypto::random_bytes(random));
  std::array<char, 8> text{};
  (void)std::snprintf(text.data(), text.size(), "%02x%02x", random[0], random[1]);
  return "cw" + node.value + text.data();
}

base::Status configure_cell_here() {
  constexpr std::array<std::pair<const char*, const char*>, 5> kSysctls{{
      {"ipv6/conf/all/disable_ipv6", "1"},
      {"ipv6/conf/default/disable_ipv6", "1"},
      {"ipv6/conf/default/accept_ra", "0"},
      {"ipv4/conf/default/arp_ignore", "1"},
      // A connection that was cut goes on sending its end after its process is gone, for minutes by default, and keeps the
      // namespace alive with it (tcp_orphan_retries() in net/ipv4/tcp_timer.c).
      {"ipv4/tcp_orphan_retries", "1"},
  }};
  for (const auto& [name, value] : kSysctls) {
    CR_CHECK(set_net_sysctl(name, value));
  }
  return base::ok();
}

base::Result<End> open_end() {
  Rtnl rtnl = CR_TRY(Rtnl::open());
  return End{std::move(rtnl), CR_TRY(open_packet_socket()), 0};
}

}  // namespace

base::Result<Spare> make_spare(const SpareSpec& spec) {
  return on_throwaway_thread([&]() -> base::Result<Spare> {
    base::UniqueFd netns = CR_TRY(new_netns_here());
    CR_CHECK(configure_cell_here());
    End cell = CR_TRY(open_end());
    CR_CHECK(enter_netns(spec.router_netns));
    End router = CR_TRY(open_end());
    const std::string name = CR_TRY(spare_link(spec.node));
    CR_CHECK(router.rtnl.create_veth({name, kGatewayMac, kCellInterface, kCellMac, netns.get(), kMtu}));
    router.ifindex = CR_TRY(router.rtnl.link_index(name));
    cell.ifindex = CR_TRY(cell.rtnl.link_index(kCellInterface));
    HeldHooks hooks;
    if (spec.attach == Attach::kTcx) {
      hooks = CR_TRY(hold_hooks(spec.drop_all, router.ifindex));
    }
    return Spare{std::move(netns), std::move(cell), std::move(router), std::move(hooks)};
  });
}

SparePool::SparePool(const SpareSpec& spec, std::size_t target)
    : spec_(spec), target_(target), thread_([this] { run(); }) {}

SparePool::~SparePool() {
  stock_.lock()->ending = true;
  changed_.notify_one();
}

base::Result<Spare> SparePool::take() {
  {
    auto stock = stock_.lock();
    if (!stock->spares.empty()) {
      Spare spare = std::move(stock->spares.back());
      stock->spares.pop_back();
      return spare;
    }
  }
  return make_spare(spec_);
}

void SparePool::refill() {
  stock_.lock()->wanted = true;
  changed_.notify_one();
}

void SparePool::run() {
  constexpr auto kIdle = std::chrono::hours(1);  // bounds the wait; nothing depends on it
  while (true) {
    {
      auto stock = stock_.lock();
      while (!stock->ending && !stock->wanted) {
        stock.wait(changed_, base::Deadline::after(kIdle));
      }
      if (stock->ending) {
        return;
      }
      if (stock->spares.size() >= target_) {
        stock->wanted = false;
        continue;
      }
    }
    auto spare = make_spare(spec_);
    auto stock = stock_.lock();
    if (spare.ok()) {
      stock->spares.push_back(std::move(*spare));
    } else {
      stock->wanted = false;  // no retry on its own: connect() reports the cause when it persists
    }
  }
}

}  // namespace cellrund::netpolicy
