// Router::connect(): a cell's network from nothing to proven, on one thread that ends with it.
#include <array>

#include "crypto/digest.hpp"
#include "netpolicy/account.hpp"
#include "netpolicy/attach.hpp"
#include "netpolicy/canary.hpp"
#include "netpolicy/names.hpp"
#include "netpolicy/netns.hpp"
#include "netpolicy/policy.hpp"
#include "netpolicy/router.hpp"
#include "netpolicy/router_state.hpp"
#include "netpolicy/rtnl.hpp"

namespace cellrund::netpolicy {
namespace {

using base::Errc;
using base::Error;
using model::InventoryItem;
using model::ItemKind;

constexpr auto kCanaryBudget = std::chrono::seconds(2);
constexpr std::uint32_t kLoopback = 1;

// The cell's namespace and the sockets that act in either namespace from any thread.
struct Ends {
  base::UniqueFd netns;
  Rtnl cell;
  base::UniqueFd cell_packets;
  Rtnl router;
  base::UniqueFd router_packets;
};

// A veth pair, both ends down.
struct VethPair {
  std::uint32_t host = 0;
  std::uint32_t cell = 0;
};

// Everything that exists once connect() is through, by identity.
struct Made {
  base::UniqueFd netns;
  std::uint32_t host_ifindex = 0;
  Attachment attachment;
  std::array<std::uint32_t, 4> maps{};  // config, control, counters, decisions
  model::EgressFacts facts;
};

cr_config config_of(const CellNetwork& network, std::uint32_t allow_mark) {
  cr_config config{};
  std::copy(kCellMac.begin(), kCellMac.end(), config.cell_mac);
  std::copy(kGatewayMac.begin(), kGatewayMac.end(), config.gateway_mac);
  for (unsigned i = 0; i < 4; ++i) {
    config.cell_address[i] = static_cast<cr_u8>(network.cell >> (24U - 8U * i));
  }
  config.allow_mark = allow_mark;
  return config;
}

// Leaves the calling thread in the router namespace.
base::Result<Ends> make_ends(const std::string& netns_path, int router_netns_fd) {
  base::UniqueFd netns = CR_TRY(create_netns_here(netns_path));
  constexpr std::array<std::pair<const char*, const char*>, 4> kSysctls{{
      {"ipv6/conf/all/disable_ipv6", "1"},
      {"ipv6/conf/default/disable_ipv6", "1"},
      {"ipv6/conf/default/accept_ra", "0"},
      {"ipv4/conf/default/arp_ignore", "1"},
  }};
  for (const auto& [name, value] : kSysctls) {
    CR_CHECK(set_net_sysctl(name, value));
  }
  Rtnl cell = CR_TRY(Rtnl::open());
  base::UniqueFd cell_packets = CR_TRY(open_packet_socket());
  CR_CHECK(enter_netns(router_netns_fd));
  Rtnl router = CR_TRY(Rtnl::open());
  base::UniqueFd router_packets = CR_TRY(open_packet_socket());
  return Ends{std::move(netns), std::move(cell), std::move(cell_packets), std::move(router), std::move(router_packets)};
}

base::Result<VethPair> make_veth(Ends& ends, const model::CellName& name) {
  CR_CHECK(ends.router.create_veth({name.host_link(), kGatewayMac, kCellInterface, kCellMac, ends.netns.get(), kMtu}));
  return VethPair{CR_TRY(ends.router.link_index(name.host_link())), CR_TRY(ends.cell.link_index(kCellInterface))};
}

base::Status set_up(Ends& ends, const VethPair& veth, const CellNetwork& network, const AttachedFilter& filter) {
  CR_ASSERT(filter.attachment().ifindex == veth.host);
  CR_CHECK(ends.router.add_address(veth.host, network.gateway, kPrefix));
  CR_CHECK(ends.cell.add_address(veth.cell, network.cell, kPrefix));
  CR_CHECK(ends.router.add_neighbour(veth.host, network.cell, kCellMac));
  CR_CHECK(ends.cell.add_neighbour(veth.cell, network.gateway, kGatewayMac));
  CR_CHECK(ends.cell.set_up(kLoopback));
  CR_CHECK(ends.router.set_up(veth.host));
  // The cell's end last: the end that completes the pair can send at once, the other only after the kernel has
  // noticed its carrier.
  CR_CHECK(ends.cell.set_up(veth.cell));
  return ends.cell.add_default_route(veth.cell, network.gateway);
}

model::Inventory intent(const model::CellName& name, const std::string& run_dir, Attach attach) {
  model::Inventory items{
      {ItemKind::kNetns, cell_netns(run_dir, name), ""},
      {ItemKind::kLink, name.host_link(), ""},
      {ItemKind::kBpfPin, pin_dir(run_dir, name), ""},
      {ItemKind::kBpfProgram, program_out_name(name), ""},
      {ItemKind::kBpfProgram, program_in_name(name), ""},
      {ItemKind::kBpfMap, config_name(name), ""},
      {ItemKind::kBpfMap, control_name(name), ""},
      {ItemKind::kBpfMap, counters_name(name), ""},
      {ItemKind::kBpfMap, decisions_name(name), ""},
  };
  if (attach == Attach::kTcx) {
    items.push_back({ItemKind::kBpfLink, name.host_link() + "/ingress", ""});
    items.push_back({ItemKind::kBpfLink, name.host_link() + "/egress", ""});
  }
  return items;
}

std::string text(const base::FileId& id) { return std::to_string(id.dev) + ":" + std::to_string(id.ino); }

base::Status write_identities(const model::CellName& name, const std::string& run_dir, const base::FileId& router,
                              const Made& made, model::Journal& journal) {
  const Attachment& attached = made.attachment;
  const model::Inventory items{
      {ItemKind::kNetns, cell_netns(run_dir, name), text(CR_TRY(base::file_id(made.netns.get())))},
      {ItemKind::kLink, name.host_link(), std::to_string(made.host_ifindex) + "@" + text(router)},
      {ItemKind::kBpfPin, pin_dir(run_dir, name), text(CR_TRY(base::file_id(pin_dir(run_dir, name))))},
      {ItemKind::kBpfProgram, program_out_name(name), std::to_string(attached.program_out)},
      {ItemKind::kBpfProgram, program_in_name(name), std::to_string(attached.program_in)},
      {ItemKind::kBpfMap, config_name(name), std::to_string(made.maps[0])},
      {ItemKind::kBpfMap, control_name(name), std::to_string(made.maps[1])},
      {ItemKind::kBpfMap, counters_name(name), std::to_string(made.maps[2])},
      {ItemKind::kBpfMap, decisions_name(name), std::to_string(made.maps[3])},
  };
  for (const InventoryItem& item : items) {
    CR_CHECK(journal.created(item));
  }
  if (attached.mode == Attach::kTcx) {
    CR_CHECK(journal.created({ItemKind::kBpfLink, name.host_link() + "/ingress", std::to_string(attached.link_out)}));
    CR_CHECK(journal.created({ItemKind::kBpfLink, name.host_link() + "/egress", std::to_string(attached.link_in)}));
  }
  return base::ok();
}

}  // namespace

base::Result<NetworkedCell> Router::connect(const model::CellName& name, model::Journal& journal,
                                            std::span<const model::ExpectBlocked> expect_blocked) const {
  const std::string& run_dir = state_->options.run_dir;
  const CellNetwork network = CR_TRY(network_of_slot(name.slot));
  const cr_config config = config_of(network, state_->allow_mark);
  CR_CHECK(journal.intend(intent(name, run_dir, state_->attach)));

  auto built = on_throwaway_thread([&]() -> base::Result<Made> {
    Made made;
    Ends ends = CR_TRY(make_ends(cell_netns(run_dir, name), state_->netns.get()));
    const VethPair veth = CR_TRY(make_veth(ends, name));
    const LoadedFilter filter = CR_TRY(state_->program.load(name, config));
    const AttachedFilter attached =
        CR_TRY(attach_filter(filter, state_->attach, veth.host, pin_dir(run_dir, name), ends.router));
    made.facts.readback_boot_ns = base::BootTime::now().ns;
    CR_CHECK(set_up(ends, veth, network, attached));
    const CanaryResult canary =
        CR_TRY(run_canary({ends.cell_packets.get(), veth.cell}, {ends.router_packets.get(), veth.host}, config,
                          filter.counters().fd.get(), filter.decisions().fd.get(), expect_blocked,
                          base::Deadline::after(kCanaryBudget)));
    made.facts.canary_sent = canary.sent;
    made.facts.canary_blocked = canary.blocked;
    made.facts.canary_counted = canary.counted;
    state_->closer.close_later(std::move(ends.cell_packets));
    state_->closer.close_later(std::move(ends.router_packets));
    made.netns = std::move(ends.netns);
    made.host_ifindex = veth.host;
    made.attachment = attached.attachment();
    made.maps = {filter.config().id, filter.control().id, filter.counters().id, filter.decisions().id};
    return made;
  });
  Made made = CR_TRY(std::move(built).context("connect " + name.marker()));
  CR_CHECK(write_identities(name, run_dir, state_->netns_id, made, journal));

  // The rest of the facts comes from the pins, as it will at the end.
  model::EgressFacts facts = CR_TRY(netpolicy::read_facts(name, run_dir));
  facts.attach_netns = text(state_->netns_id);
  facts.attach_ifindex = made.host_ifindex;
  facts.readback_boot_ns = made.facts.readback_boot_ns;
  facts.canary_sent = made.facts.canary_sent;
  facts.canary_blocked = made.facts.canary_blocked;
  facts.canary_counted = made.facts.canary_counted;
  CellInterface interface;
  interface.address = format_ipv4(network.cell);
  interface.gateway = format_ipv4(network.gateway);
  return NetworkedCell(run_dir, name, std::move(made.netns), cell_netns(run_dir, name), std::move(interface),
                       std::move(facts));
}

}  // namespace cellrund::netpolicy
