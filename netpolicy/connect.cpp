// Router::connect(): a cell's network from a spare one to a proven one.
#include <sys/socket.h>

#include <array>

#include "netpolicy/attach.hpp"
#include "netpolicy/canary.hpp"
#include "netpolicy/firewall.hpp"
#include "netpolicy/host_addresses.hpp"
#include "netpolicy/names.hpp"
#include "netpolicy/netns.hpp"
#include "netpolicy/policy_maps.hpp"
#include "netpolicy/resolver/name_service.hpp"
#include "netpolicy/router.hpp"
#include "netpolicy/router_state.hpp"
#include "netpolicy/rtnl.hpp"

namespace cellrund::netpolicy {
namespace {

using model::InventoryItem;
using model::ItemKind;

constexpr auto kCanaryBudget = std::chrono::seconds(2);
constexpr std::uint32_t kLoopback = 1;

// What exists once connect() is through, by identity, and what was proven about it.
struct Made {
  base::UniqueFd netns;
  std::string netns_cookie;  // ":N", or empty before kernel 5.14
  Attachment attachment;
  std::array<std::uint32_t, kCellMaps.size()> maps{};
  base::BootTime read_back;
  CanaryResult canary;
  Probes probes;
};

// Where rules that expire find the clock that nobody sets.
std::int64_t boot_offset_ns() {
  constexpr std::int64_t kSecond = 1'000'000'000;
  const base::WallTime wall = base::WallTime::now();
  return base::BootTime::now().ns - (wall.seconds * kSecond + wall.nanos);
}

// The maps hold the compiled policy and nothing else.
base::Status expect_policy(const LoadedFilter& filter, const CompiledPolicy& policy) {
  const std::string found = CR_TRY(
      read_policy_digest(filter.map(MapRole::kDeny).fd.get(), filter.map(MapRole::kAllow).fd.get()));
  if (found != map_digest(policy.deny, policy.allow)) {
    return base::Error(base::Errc::kFailedPrecondition, "egress filter: the maps do not hold the compiled policy");
  }
  return base::ok();
}

base::Status set_up(Spare& network, const CellNetwork& addresses, const AttachedFilter& filter) {
  End& cell = network.cell;
  End& router = network.router;
  CR_ASSERT(filter.attachment().ifindex == router.ifindex);
  CR_CHECK(router.rtnl.add_address(router.ifindex, addresses.gateway, kPrefix));
  CR_CHECK(cell.rtnl.add_address(cell.ifindex, addresses.cell, kPrefix));
  CR_CHECK(router.rtnl.add_neighbour(router.ifindex, addresses.cell, kCellMac));
  CR_CHECK(cell.rtnl.add_neighbour(cell.ifindex, addresses.gateway, kGatewayMac));
  CR_CHECK(cell.rtnl.set_up(kLoopback));
  CR_CHECK(router.rtnl.set_up(router.ifindex));
  // The cell's end last: the end that completes the pair can send at once, the other only after the kernel has
  // noticed its carrier.
  CR_CHECK(cell.rtnl.set_up(cell.ifindex));
  return cell.rtnl.add_default_route(cell.ifindex, addresses.gateway);
}

constexpr const char* kResolver = "resolver";

model::Inventory intent(const model::CellName& name, const std::string& run_dir, Attach attach, bool resolver) {
  model::Inventory items{
      {ItemKind::kNetns, cell_netns(run_dir, name), ""},  {ItemKind::kLink, name.host_link(), ""},
      {ItemKind::kBpfPin, pin_dir(run_dir, name), ""},    {ItemKind::kBpfProgram, program_out_name(name), ""},
      {ItemKind::kBpfProgram, program_in_name(name), ""},
  };
  for (std::size_t i = 0; i < kCellMaps.size(); ++i) {
    items.push_back({ItemKind::kBpfMap, map_name(name, i), ""});
  }
  if (attach == Attach::kTcx) {
    items.push_back({ItemKind::kBpfLink, name.host_link() + "/ingress", ""});
    items.push_back({ItemKind::kBpfLink, name.host_link() + "/egress", ""});
  }
  if (resolver) {
    items.push_back({ItemKind::kProcess, kResolver, ""});
  }
  return items;
}

// SO_NETNS_COOKIE of the socket's namespace. Inode numbers of namespaces are reused as soon as one is gone; this is not.
std::string cookie_of(int socket) {
  std::uint64_t cookie = 0;
  socklen_t size = sizeof cookie;
  constexpr int kNetnsCookie = 71;  // asm-generic/socket.h
  return ::getsockopt(socket, SOL_SOCKET, kNetnsCookie, &cookie, &size) == 0 ? ":" + std::to_string(cookie) : "";
}

std::string text(const base::FileId& id) {
  return std::to_string(id.dev) + ":" + std::to_string(id.ino);
}

base::Status write_identities(const model::CellName& name, const std::string& run_dir, const base::FileId& router,
                              const Made& made, model::Journal& journal) {
  const Attachment& attached = made.attachment;
  model::Inventory items{
      {ItemKind::kNetns, cell_netns(run_dir, name), text(CR_TRY(base::file_id(made.netns.get()))) + made.netns_cookie},
      {ItemKind::kLink, name.host_link(), std::to_string(made.attachment.ifindex) + "@" + text(router)},
      {ItemKind::kBpfPin, pin_dir(run_dir, name), text(CR_TRY(base::file_id(pin_dir(run_dir, name))))},
      {ItemKind::kBpfProgram, program_out_name(name), std::to_string(attached.program_out)},
      {ItemKind::kBpfProgram, program_in_name(name), std::to_string(attached.program_in)},
  };
  for (std::size_t i = 0; i < kCellMaps.size(); ++i) {
    items.push_back({ItemKind::kBpfMap, map_name(name, i), std::to_string(made.maps[i])});
  }
  for (const InventoryItem& item : items) {
    CR_CHECK(journal.created(item));
  }
  if (attached.mode == Attach::kTcx) {
    CR_CHECK(journal.created({ItemKind::kBpfLink, name.host_link() + "/ingress", std::to_string(attached.link_out)}));
    CR_CHECK(journal.created({ItemKind::kBpfLink, name.host_link() + "/egress", std::to_string(attached.link_in)}));
  }
  return base::ok();
}

base::Result<std::vector<NamedService>> services_of(std::span<const model::ExpectBlocked> targets) {
  std::vector<NamedService> out;
  for (const model::ExpectBlocked& target : targets) {
    const auto protocol = target.protocol == "tcp" ? model::Transport::kTcp : model::Transport::kUdp;
    out.push_back({protocol, target.port, CR_TRY(parse_ipv4(target.address))});
  }
  return out;
}

// Null when the policy names no host. The process is journalled before it can be asked anything.
base::Result<std::unique_ptr<resolver::NameService>> start_names(const model::CellName& name,
                                                                 const RouterOptions& options, int router_netns,
                                                                 std::uint32_t gateway, const CompiledPolicy& policy,
                                                                 std::span<const model::ExpectBlocked> expect_blocked,
                                                                 model::Journal& journal) {
  if (policy.names.empty()) {
    return std::unique_ptr<resolver::NameService>();
  }
  if (options.dns_upstreams.empty()) {
    return base::Error(base::Errc::kUnimplemented, "the policy names hosts, and this node has no [network] dns_upstream");
  }
  resolver::NameServiceOptions service{options.resolver, options.dns_upstreams, router_netns, gateway,
                                       CR_TRY(open_pin(map_pin(pin_dir(options.run_dir, name), MapRole::kNamed))),
                                       CR_TRY(services_of(expect_blocked))};
  auto names = CR_TRY(resolver::NameService::start(std::move(service), policy));
  const base::ProcessId& id = names->process();
  CR_CHECK(journal.created({ItemKind::kProcess, kResolver, std::to_string(id.pid) + ":" + std::to_string(id.start_time)}));
  return names;
}

}  // namespace

base::Result<NetworkedCell> Router::connect(const model::CellName& name, model::Journal& journal,
                                            const NetworkPlan& plan) const {
  const std::string& run_dir = state_->options.run_dir;
  const CellNetwork network = CR_TRY(network_of_slot(name.slot));
  const cr_config config = make_config(network.cell, state_->allow_mark, plan.egress.quota);
  const CompiledPolicy policy =
      compile(plan.egress, plan.relaxations, {network.gateway, CR_TRY(host_addresses()), boot_offset_ns()});
  CR_CHECK(journal.intend(intent(name, run_dir, state_->attach, !policy.names.empty())));

  Spare spare = CR_TRY(state_->spares->take().context("connect " + name.marker()));
  auto built = in_netns(state_->netns.get(), [&]() -> base::Result<Made> {
    CR_CHECK(bind_netns(spare.netns.get(), cell_netns(run_dir, name)));
    CR_CHECK(spare.router.rtnl.rename(spare.router.ifindex, name.host_link()));
    const LoadedFilter filter = CR_TRY(state_->program.load(name, config, policy, state_->node_map.get()));
    const AttachedFilter attached = CR_TRY(attach_filter(filter, state_->attach, spare.router.ifindex, spare.hooks,
                                                         pin_dir(run_dir, name), spare.router.rtnl));
    CR_CHECK(expect_policy(filter, policy));
    CR_CHECK(expect_firewall(state_->firewall));
    Made made;
    made.read_back = base::BootTime::now();
    CR_CHECK(set_up(spare, network, attached));
    made.probes = CR_TRY(canary_probes(config, policy, plan.expect_blocked));
    made.canary = CR_TRY(run_canary({spare.cell.packets.get(), spare.cell.ifindex}, {spare.router.packets.get(), spare.router.ifindex},
                                    made.probes, filter.counters(), filter.decisions(), base::Deadline::after(kCanaryBudget)));
    made.netns_cookie = cookie_of(spare.cell.packets.get());
    made.netns = std::move(spare.netns);
    made.attachment = attached.attachment();
    for (std::size_t i = 0; i < made.maps.size(); ++i) {
      made.maps[i] = filter.map(static_cast<MapRole>(i)).id;
    }
    return made;
  });
  state_->closer.close_later(std::move(spare.cell.packets));
  state_->closer.close_later(std::move(spare.router.packets));
  Made made = CR_TRY(std::move(built).context("connect " + name.marker()));
  CR_CHECK(write_identities(name, run_dir, state_->netns_id, made, journal));

  // The rest of the facts comes from the pins, as it will at the end.
  model::EgressFacts facts = CR_TRY(netpolicy::read_facts(name, run_dir));
  facts.policy_digest = policy.policy_digest;
  facts.relaxations = policy.relaxations;
  facts.attach_netns = text(state_->netns_id);
  facts.attach_ifindex = made.attachment.ifindex;
  facts.readback_boot_ns = made.read_back.ns;
  facts.canary_sent = made.canary.sent;
  facts.canary_blocked = made.canary.blocked;
  facts.canary_counted = made.canary.counted;
  auto names = CR_TRY(start_names(name, state_->options, state_->netns.get(), network.gateway, policy,
                                  plan.expect_blocked, journal));
  CellInterface interface;
  interface.address = format_ipv4(network.cell);
  interface.gateway = format_ipv4(network.gateway);
  if (names != nullptr) {
    interface.nameserver = interface.gateway;
    auto records = state_->dns_records.lock();
    std::erase_if(*records, [](const auto& entry) { return entry.second.expired(); });
    (*records)[name.uid] = names->record();
  }
  Proof proof{run_dir, name, made.attachment, state_->firewall};
  // The lease comes last: until now not even what the policy allows would have passed.
  Warden::Watch watch = CR_TRY(state_->warden->watch(proof, plan.on_alarm));
  return NetworkedCell(run_dir, name, std::move(made.netns), cell_netns(run_dir, name), std::move(interface),
                       std::move(facts), std::move(made.probes), std::move(proof), std::move(watch), std::move(names));
}

}  // namespace cellrund::netpolicy
