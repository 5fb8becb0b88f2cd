#include "netpolicy/uplink.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <sys/file.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <memory>

#include "base/file.hpp"
#include "netpolicy/address.hpp"
#include "netpolicy/host_firewall.hpp"
#include "netpolicy/names.hpp"
#include "netpolicy/netns.hpp"
#include "netpolicy/nft.hpp"
#include "netpolicy/rtnl.hpp"
#include "netpolicy/uplink_record.hpp"

namespace cellrund::netpolicy {
namespace {

using base::Errc;
using base::Error;

constexpr Mac kHostMac{0x02, 0x43, 0x52, 0x00, 0x01, 0x01};
constexpr Mac kRouterMac{0x02, 0x43, 0x52, 0x00, 0x01, 0x02};
constexpr std::uint32_t kLowestMtu = 576;  // RFC 791: what every host takes
constexpr auto kLinkGoes = std::chrono::seconds(2);

// One node at a time changes the host's namespace: the lock is on the namespace itself, so it needs no common folder.
class HostLock {
 public:
  static base::Result<HostLock> take() {
    constexpr auto kPatience = std::chrono::seconds(20);
    constexpr auto kLook = std::chrono::milliseconds(20);
    base::UniqueFd netns = CR_TRY(base::open_file("/proc/thread-self/ns/net", O_RDONLY));
    const base::Deadline deadline = base::Deadline::after(kPatience);
    while (::flock(netns.get(), LOCK_EX | LOCK_NB) != 0) {
      if (errno != EWOULDBLOCK && errno != EINTR) {
        return Error::from_errno("lock the host's network namespace");
      }
      if (deadline.expired()) {
        return Error(Errc::kDeadlineExceeded, "lock the host's network namespace: another node holds it");
      }
      const base::UniqueFd timer = CR_TRY(base::boot_timer(base::BootTime::now() + kLook));
      (void)CR_TRY(base::wait_readable(timer.get(), deadline));
    }
    return HostLock(std::move(netns));
  }

 private:
  explicit HostLock(base::UniqueFd netns) : netns_(std::move(netns)) {}
  base::UniqueFd netns_;
};

std::string conf(const std::string& link, const std::string& name) {
  return "ipv4/conf/" + link + "/" + name;
}

base::Result<bool> forwards(const std::string& link) {
  const std::string value = CR_TRY(net_sysctl(conf(link, "forwarding")));
  return !value.starts_with('0');
}

base::Result<LinkInfo> find_interface(Rtnl& host, const std::string& name) {
  auto found = host.find_link(name);
  if (!found.ok() && found.error().code() == Errc::kNotFound) {
    return Error(Errc::kFailedPrecondition,
                 "[network] uplink = \"" + name +
                     "\": the host has no interface of that name; set it to one that `ip link` lists, or to \"none\"");
  }
  return found;
}

// What nodes of this host have noted of the interface on their links.
base::Result<std::vector<InterfaceBefore>> notes_of(Rtnl& host, const std::string& interface) {
  std::vector<InterfaceBefore> out;
  for (const LinkInfo& link : CR_TRY(host.list_links())) {
    auto note = link.name.starts_with(kHostLinkPrefix) ? parse_alias(link.alias) : std::nullopt;
    if (note && note->name == interface) {
      out.push_back(std::move(*note));
    }
  }
  return out;
}

struct Subnet {
  std::uint32_t address = 0, mask = 0;
};

base::Result<std::vector<Subnet>> host_subnets() {
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) {
    return Error::from_errno("list the host's addresses");
  }
  const std::unique_ptr<ifaddrs, void (*)(ifaddrs*)> owner(list, ::freeifaddrs);
  std::vector<Subnet> out;
  for (const ifaddrs* entry = list; entry != nullptr; entry = entry->ifa_next) {
    if (entry->ifa_addr == nullptr || entry->ifa_netmask == nullptr || entry->ifa_addr->sa_family != AF_INET) {
      continue;
    }
    sockaddr_in address{}, mask{};
    std::memcpy(&address, entry->ifa_addr, sizeof address);
    std::memcpy(&mask, entry->ifa_netmask, sizeof mask);
    out.push_back({ntohl(address.sin_addr.s_addr), ntohl(mask.sin_addr.s_addr)});
  }
  return out;
}

// The first free /31 from where the node's tag points.
base::Result<std::uint32_t> choose_address(const model::NodeTag& node) {
  constexpr int kHex = 16;
  const std::vector<Subnet> taken = CR_TRY(host_subnets());
  std::uint32_t start = 0;
  (void)std::from_chars(node.value.data(), node.value.data() + node.value.size(), start, kHex);
  for (std::uint32_t i = 0; i < kUplinkNetworks; ++i) {
    const std::uint32_t address = kUplinkAddresses + 2 * ((start + i) % kUplinkNetworks);
    const bool clashes = std::any_of(taken.begin(), taken.end(), [&](const Subnet& subnet) {
      const std::uint32_t mask = subnet.mask & ~1U;  // either end of the /31
      return (address & mask) == (subnet.address & mask);
    });
    if (!clashes) {
      return address;
    }
  }
  return Error(Errc::kFailedPrecondition, "uplink: the host uses all of 100.127.0.0/16 itself");
}

base::Result<UplinkRecord> plan(Rtnl& host, const UplinkSpec& spec, const LinkInfo& interface) {
  UplinkRecord record;
  record.boot_id = CR_TRY(base::boot_id());
  record.netns = CR_TRY(netns_cookie_here());
  record.ifindex = interface.index;
  record.address = CR_TRY(choose_address(spec.node));
  record.before = {spec.interface, CR_TRY(forwards(spec.interface)), CR_TRY(forwards("all"))};
  // Opened by another node rather than by the host; once somebody has changed net.ipv4.ip_forward, it is theirs.
  for (const InterfaceBefore& note : CR_TRY(notes_of(host, spec.interface))) {
    record.before.forwarding =
        record.before.forwarding && (note.forwarding || note.all_forwarding != record.before.all_forwarding);
  }
  return record;
}

base::Status remove_link(Rtnl& host, const std::string& name) {
  const auto index = host.link_index(name);
  if (!index.ok()) {
    return index.error().code() == Errc::kNotFound ? base::ok() : base::Status(index.error().clone());
  }
  CR_CHECK(host.delete_link(*index));
  Rtnl watch = CR_TRY(Rtnl::open());
  if (!CR_TRY(watch.wait_link_gone(name, base::Deadline::after(kLinkGoes)))) {
    return Error(Errc::kDeadlineExceeded, "link " + name + " is still there after its deletion");
  }
  return base::ok();
}

// Both ends, down or up. An adopted pair is one whose ends are each other's.
base::Status ensure_pair(Rtnl& host, Rtnl& router, const UplinkSpec& spec, std::uint32_t mtu) {
  const std::string name = uplink_host_link(spec.node);
  const auto outer = host.find_link(name);
  const auto inner = router.find_link(kUplink);
  for (const auto* end : {&outer, &inner}) {
    if (!end->ok() && end->error().code() != Errc::kNotFound) {
      return end->error().clone();
    }
  }
  const bool pair = outer.ok() && inner.ok() && outer->peer == inner->index && inner->peer == outer->index;
  if (pair && outer->mtu == mtu && inner->mtu == mtu) {
    return base::ok();
  }
  if (inner.ok() && !pair) {
    return Error(Errc::kFailedPrecondition,
                 std::string("uplink: the router namespace has a link ") + kUplink +
                     " that is not this node's; remove it, or set [network] uplink to \"none\"");
  }
  CR_CHECK(remove_link(host, name));
  return host.create_veth({name, kHostMac, kUplink, kRouterMac, spec.router_netns, mtu});
}

base::Status tolerate_existing(base::Status status) {
  return !status.ok() && status.error().os_errno() == EEXIST ? base::ok() : std::move(status);
}

// Everything that decides what the host's end takes is set before it is up, and forwarding last of all.
base::Status configure_pair(Rtnl& host, Rtnl& router, const UplinkSpec& spec, const UplinkRecord& record) {
  const std::string name = uplink_host_link(spec.node);
  const std::uint32_t outer = CR_TRY(host.link_index(name));
  const std::uint32_t inner = CR_TRY(router.link_index(kUplink));
  CR_CHECK(host.set_alias(outer, to_alias(record.before)));
  CR_CHECK(set_net_sysctl("ipv6/conf/" + name + "/disable_ipv6", "1"));
  constexpr std::array<std::pair<const char*, const char*>, 6> kSysctls{{
      {"rp_filter", "1"},
      {"arp_ignore", "1"},
      {"accept_redirects", "0"},
      {"send_redirects", "0"},
      {"proxy_arp", "0"},
      {"route_localnet", "0"},
  }};
  for (const auto& [sysctl, value] : kSysctls) {
    CR_CHECK(set_net_sysctl(conf(name, sysctl), value));
  }
  CR_CHECK(tolerate_existing(host.add_address(outer, record.address, kPrefix)));
  CR_CHECK(tolerate_existing(router.add_address(inner, record.address + 1, kPrefix)));
  CR_CHECK(host.add_neighbour(outer, record.address + 1, kRouterMac));
  CR_CHECK(router.add_neighbour(inner, record.address, kHostMac));
  CR_CHECK(host.set_up(outer));
  CR_CHECK(router.set_up(inner));
  CR_CHECK(tolerate_existing(router.add_default_route(inner, record.address)));
  return set_net_sysctl(conf(name, "forwarding"), "1");
}

// The kernel asks the link that a packet comes in by whether it forwards (ip_route_input_slow() in net/ipv4/route.c).
// So the interface alone is opened, for what comes back, and net.ipv4.ip_forward stays as it is.
base::Status open_interface(const std::string& interface) {
  if (CR_TRY(forwards(interface))) {
    return base::ok();
  }
  return set_net_sysctl(conf(interface, "forwarding"), "1");
}

base::Status close_interface(Rtnl& host, const UplinkRecord& record) {
  const InterfaceBefore& before = record.before;
  if (before.forwarding) {
    return base::ok();
  }
  const auto interface = host.find_link(before.name);
  if (!interface.ok()) {
    return interface.error().code() == Errc::kNotFound ? base::ok() : base::Status(interface.error().clone());
  }
  if (interface->index != record.ifindex || CR_TRY(forwards("all")) != before.all_forwarding ||
      !CR_TRY(notes_of(host, before.name)).empty()) {  // another node's: the last one closes it
    return base::ok();
  }
  return set_net_sysctl(conf(before.name, "forwarding"), "0");
}

// The link first: from then on nothing comes out of the router. The record last: until then it can be done again.
base::Status take_down(Rtnl& host, const std::string& run_dir, const model::NodeTag& node, const std::string& nft,
                       const UplinkRecord& record) {
  CR_CHECK(remove_link(host, uplink_host_link(node)));
  CR_CHECK(close_interface(host, record));
  CR_CHECK(run_nft(nft, host_table_removal(node)));
  return base::remove_file(uplink_file(run_dir, node));
}

// The run folder was lost, or is another one's: the note on the link says what it needs.
base::Status take_down_unrecorded(Rtnl& host, const std::string& run_dir, const model::NodeTag& node,
                                  const std::string& nft) {
  const auto link = host.find_link(uplink_host_link(node));
  if (!link.ok()) {
    return link.error().code() == Errc::kNotFound ? base::ok() : base::Status(link.error().clone());
  }
  UplinkRecord record;
  record.before.forwarding = true;  // without a note there is nothing to put back
  if (auto note = parse_alias(link->alias)) {
    record.before = std::move(*note);
    if (const auto interface = host.link_index(record.before.name); interface.ok()) {
      record.ifindex = *interface;
    }
  }
  return take_down(host, run_dir, node, nft, record);
}

// What a record says about this boot and this namespace. Where its other half is gone, so is everything that it speaks
// of.
base::Result<bool> is_void(const UplinkRecord& record, const std::string& run_dir, const model::NodeTag& node) {
  if (record.boot_id != CR_TRY(base::boot_id())) {
    return true;
  }
  if (record.netns == CR_TRY(netns_cookie_here())) {
    return false;
  }
  const auto router = open_netns(router_netns(run_dir, node));
  if (router.ok()) {
    Rtnl rtnl = CR_TRY(in_netns(router->get(), [] { return Rtnl::open(); }));
    const auto link = rtnl.find_link(kUplink);
    if (link.ok()) {
      return Error(Errc::kFailedPrecondition,
                   "the uplink of this node was made in another network namespace; run this there, where " +
                       uplink_host_link(node) + " is");
    }
  }
  return true;
}

// The record, if it is about anything that still exists.
base::Result<std::optional<UplinkRecord>> current_record(const std::string& run_dir, const model::NodeTag& node) {
  const std::string path = uplink_file(run_dir, node);
  auto record = CR_TRY(load_uplink_record(path));
  if (record && CR_TRY(is_void(*record, run_dir, node))) {
    CR_CHECK(base::remove_file(path));
    record.reset();
  }
  return record;
}

}  // namespace

base::Result<std::uint32_t> uplink_mtu(const std::string& interface) {
  Rtnl host = CR_TRY(Rtnl::open());
  const LinkInfo link = CR_TRY(find_interface(host, interface));
  return std::clamp(link.mtu, kLowestMtu, kMtu);
}

base::Status raise_uplink(const UplinkSpec& spec) {
  const HostLock lock = CR_TRY(HostLock::take());
  Rtnl host = CR_TRY(Rtnl::open());
  Rtnl router = CR_TRY(in_netns(spec.router_netns, [] { return Rtnl::open(); }));
  const LinkInfo interface = CR_TRY(find_interface(host, spec.interface));
  auto record = CR_TRY(current_record(spec.run_dir, spec.node));
  if (record && (record->before.name != spec.interface || record->ifindex != interface.index)) {
    CR_CHECK(take_down(host, spec.run_dir, spec.node, spec.nft, *record));
    record.reset();
  }
  if (!record) {
    CR_CHECK(take_down_unrecorded(host, spec.run_dir, spec.node, spec.nft));
    record = CR_TRY(plan(host, spec, interface));
    CR_CHECK(store_uplink_record(uplink_file(spec.run_dir, spec.node), *record));
  }
  const bool ours_alone = !record->before.forwarding && !CR_TRY(forwards("all"));
  CR_CHECK(run_nft(spec.nft, host_table_ruleset({spec.node, spec.interface, record->address + 1, ours_alone})));
  CR_CHECK(ensure_pair(host, router, spec, std::clamp(interface.mtu, kLowestMtu, kMtu)));
  CR_CHECK(configure_pair(host, router, spec, *record));
  return open_interface(spec.interface);
}

base::Status lower_uplink(const std::string& run_dir, const model::NodeTag& node, const std::string& nft) {
  const HostLock lock = CR_TRY(HostLock::take());
  Rtnl host = CR_TRY(Rtnl::open());
  const auto record = CR_TRY(current_record(run_dir, node));
  return record ? take_down(host, run_dir, node, nft, *record) : take_down_unrecorded(host, run_dir, node, nft);
}

}  // namespace cellrund::netpolicy
