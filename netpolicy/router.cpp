#include "netpolicy/router.hpp"

#include <bpf/bpf.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/magic.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <optional>
#include <system_error>

#include "crypto/random.hpp"
#include "netpolicy/attach.hpp"
#include "netpolicy/firewall.hpp"
#include "netpolicy/names.hpp"
#include "netpolicy/netns.hpp"
#include "netpolicy/router_state.hpp"
#include "netpolicy/rtnl.hpp"
#include "netpolicy/uplink.hpp"

namespace cellrund::netpolicy {
namespace {

using base::Errc;
using base::Error;

constexpr std::uint32_t kLoopback = 1;
constexpr std::uint64_t kNanosPerSecond = 1'000'000'000;

base::Result<bool> is_mount_point(const std::string& path) {
  struct statx info {};
  if (::statx(AT_FDCWD, path.c_str(), AT_SYMLINK_NOFOLLOW, STATX_TYPE, &info) != 0) {
    return Error::from_errno("statx " + path);
  }
  return (info.stx_attributes_mask & info.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
}

// A mount of its own that propagates: when a cell's namespace is unmounted here, copies of the mount in other mount
// namespaces (slaves of ours) go too and cannot keep the namespace alive.
base::Status prepare_netns_dir(const std::string& path) {
  CR_CHECK(base::make_dir(path, 0700));
  if (CR_TRY(is_mount_point(path))) {
    return base::ok();
  }
  if (::mount(path.c_str(), path.c_str(), nullptr, MS_BIND, nullptr) != 0) {
    return Error::from_errno("bind " + path);
  }
  if (::mount(nullptr, path.c_str(), nullptr, MS_SHARED, nullptr) != 0) {
    return Error::from_errno("make " + path + " shared");
  }
  return base::ok();
}

base::Status prepare_bpf_dir(const std::string& path) {
  CR_CHECK(base::make_dir(path, 0700));
  struct statfs fs {};
  if (::statfs(path.c_str(), &fs) != 0) {
    return Error::from_errno("statfs " + path);
  }
  if (fs.f_type == BPF_FS_MAGIC) {
    return base::ok();
  }
  if (::mount("bpf", path.c_str(), "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700") != 0) {
    return Error::from_errno("mount bpffs at " + path);
  }
  return base::ok();
}

// The mark lives as long as the run folder does: filters of cells that survived a restart of the daemon know it.
base::Result<std::uint32_t> allow_mark(const std::string& path) {
  constexpr int kHex = 16;
  if (base::exists(path)) {
    const std::string text = CR_TRY(base::read_file(path, 64));
    std::uint32_t mark = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), mark, kHex);
    if (error == std::errc() && end == text.data() + text.size() && mark != 0) {
      return mark;
    }
    return Error(Errc::kDataLoss, path + " holds no mark");
  }
  std::array<std::uint8_t, 4> random{};
  CR_CHECK(crypto::random_bytes(random));
  std::uint32_t mark = 0;
  for (const std::uint8_t byte : random) {
    mark = mark << 8U | byte;
  }
  mark |= 1U;  // never 0, which is what unmarked packets have
  std::array<char, 16> text{};
  (void)std::snprintf(text.data(), text.size(), "%08x", mark);
  CR_CHECK(base::write_file_atomic(path, text.data(), 0600));
  return mark;
}

// On a throw-away thread inside the router namespace.
base::Status configure_here(const RouterOptions& options, std::uint32_t mark, std::optional<std::uint32_t> uplink_mtu) {
  // `default` is what links that appear later start with.
  constexpr std::array<std::pair<const char*, const char*>, 12> kSysctls{{
      {"ipv6/conf/all/disable_ipv6", "1"},
      {"ipv6/conf/default/disable_ipv6", "1"},
      {"ipv6/conf/default/accept_ra", "0"},
      {"ipv6/conf/all/forwarding", "0"},
      {"ipv4/conf/all/rp_filter", "1"},
      {"ipv4/conf/default/rp_filter", "1"},
      {"ipv4/conf/all/arp_ignore", "1"},
      {"ipv4/conf/default/arp_ignore", "1"},
      {"ipv4/conf/default/proxy_arp", "0"},
      {"ipv4/conf/all/accept_redirects", "0"},
      {"ipv4/conf/all/send_redirects", "0"},
      {"ipv4/conf/default/accept_redirects", "0"},
  }};
  for (const auto& [name, value] : kSysctls) {
    CR_CHECK(set_net_sysctl(name, value));
  }
  // Also at adoption, so that what holds is what this build says.
  CR_CHECK(write_firewall(options.nft, mark, uplink_mtu, options.dns_upstreams));
  // A connection that was forgotten is forgotten here too when the filter has forgotten it (CR_IDLE_*_NS of
  // ebpf/egress_abi.h): the kernel would keep it for five days, and count it to the next cell of the same address.
  if (uplink_mtu) {
    CR_CHECK(set_net_sysctl("netfilter/nf_conntrack_tcp_timeout_established", std::to_string(CR_IDLE_TCP_NS / kNanosPerSecond)));
    CR_CHECK(set_net_sysctl("netfilter/nf_conntrack_udp_timeout_stream", std::to_string(CR_IDLE_UDP_NS / kNanosPerSecond)));
  }
  // Routing between links comes last: never without the table.
  CR_CHECK(set_net_sysctl("ipv4/ip_forward", "1"));
  Rtnl rtnl = CR_TRY(Rtnl::open());
  return rtnl.set_up(kLoopback);
}

base::Result<base::UniqueFd> adopt_or_create(const std::string& path) {
  auto adopted = open_netns(path);
  if (adopted.ok()) {
    return adopted;
  }
  if (adopted.error().code() == Errc::kFailedPrecondition) {
    CR_CHECK(remove_netns(path));  // a file without its mount: the crash came between the two
  } else if (adopted.error().code() != Errc::kNotFound) {
    return adopted;
  }
  base::UniqueFd netns = CR_TRY(on_throwaway_thread([] { return new_netns_here(); }));
  CR_CHECK(bind_netns(netns.get(), path));
  return netns;
}

// Not named after a cell: no cell's teardown or scan has to do with it.
base::Result<base::UniqueFd> adopt_or_create_node_map(const std::string& pin) {
  auto adopted = open_pin(pin);
  if (adopted.ok() || adopted.error().code() != Errc::kNotFound) {
    return adopted;
  }
  LIBBPF_OPTS(bpf_map_create_opts, options, .map_flags = BPF_F_RDONLY_PROG);
  base::UniqueFd map(
      ::bpf_map_create(BPF_MAP_TYPE_ARRAY, "cellrun_node", sizeof(std::uint32_t), sizeof(cr_node), 1, &options));
  if (!map) {
    return Error::from_errno("create the node's BPF map");
  }
  if (::bpf_obj_pin(map.get(), pin.c_str()) != 0) {
    return Error::from_errno("pin " + pin);
  }
  return map;
}

}  // namespace

std::string_view to_string(Attach attach) noexcept {
  switch (attach) {
    case Attach::kAuto:
      return "auto";
    case Attach::kTcx:
      return "tcx";
    case Attach::kClsact:
      return "clsact";
  }
  return "";
}

base::Result<Attach> parse_attach(std::string_view text) {
  for (const Attach attach : {Attach::kAuto, Attach::kTcx, Attach::kClsact}) {
    if (text == to_string(attach)) {
      return attach;
    }
  }
  return Error(Errc::kInvalidArgument, "attach is one of auto, tcx, clsact");
}

base::Result<Router> Router::open(const RouterOptions& options) {
  std::optional<std::uint32_t> mtu;
  if (!options.uplink.empty()) {
    mtu = CR_TRY(uplink_mtu(options.uplink));  // refuses before anything is made
  }
  CR_CHECK(prepare_netns_dir(netns_dir(options.run_dir)));
  CR_CHECK(prepare_bpf_dir(bpf_dir(options.run_dir)));
  std::unique_ptr<State> state;
  try {
    state = std::make_unique<State>();
  } catch (const std::system_error& e) {  // the closer's thread: EAGAIN
    return Error::from_errno("open router: start a thread", e.code().value());
  }
  state->options = options;
  state->netns_path = router_netns(options.run_dir, options.node);
  state->netns = CR_TRY(adopt_or_create(state->netns_path));
  state->netns_id = CR_TRY(base::file_id(state->netns.get()));
  state->allow_mark = CR_TRY(allow_mark(mark_file(options.run_dir, options.node)));
  bool tcx = false;
  auto configured = in_netns(state->netns.get(), [&]() -> base::Status {
    CR_CHECK(configure_here(options, state->allow_mark, mtu));
    state->firewall = CR_TRY(firewall_generation());
    tcx = kernel_has_tcx();
    return base::ok();
  });
  CR_CHECK(std::move(configured).context("configure " + state->netns_path));
  CR_CHECK((options.uplink.empty()
                ? lower_uplink(options.run_dir, options.node, options.nft)
                : raise_uplink({options.run_dir, options.node, options.uplink, options.nft, state->netns.get()}))
               .context("uplink"));
  if (options.attach == Attach::kTcx && !tcx) {
    return Error(Errc::kUnimplemented, "attach = tcx: this kernel has no tcx links");
  }
  state->attach = options.attach == Attach::kAuto ? (tcx ? Attach::kTcx : Attach::kClsact) : options.attach;
  state->program = CR_TRY(FilterProgram::prepare());
  state->drop_all = CR_TRY(load_drop_all());
  state->node_map = CR_TRY(adopt_or_create_node_map(node_map_pin(options.run_dir, options.node)));
  try {
    state->warden = std::make_unique<Warden>(state->netns.get());
    state->spares = std::make_unique<SparePool>(
        SpareSpec{options.node, state->netns.get(), state->attach, state->drop_all.get()}, options.spares);
  } catch (const std::system_error& e) {
    return Error::from_errno("open router: start a thread", e.code().value());
  }
  return Router(std::move(state));
}

std::vector<std::string> Router::destroy(const std::string& run_dir, const model::NodeTag& node) {
  std::vector<std::string> failures;
  const auto note = [&](const base::Status& status) {
    if (!status.ok()) {
      failures.push_back(status.error().message());
    }
  };
  const auto unmount = [](const std::string& path) -> base::Status {
    // Once per open() at most, but an earlier crash may have stacked mounts. EINVAL: no mount point any more.
    constexpr int kMost = 16;
    for (int i = 0; i < kMost; ++i) {
      if (::umount2(path.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) != 0) {
        if (errno == EINVAL || errno == ENOENT) {
          return base::ok();
        }
        return Error::from_errno("unmount " + path);
      }
    }
    return Error(Errc::kResourceExhausted, path + " is mounted over and over");
  };
  note(lower_uplink(run_dir, node, RouterOptions{}.nft));
  note(remove_netns(router_netns(run_dir, node)));
  note(base::remove_file(mark_file(run_dir, node)));
  for (const std::string& dir : {bpf_dir(run_dir), netns_dir(run_dir)}) {
    note(unmount(dir));
    note(base::remove_dir(dir));
  }
  return failures;
}

void Router::replenish() const { state_->spares->refill(); }

Attach Router::attach() const noexcept {
  return state_->attach;
}
const std::string& Router::netns_path() const noexcept {
  return state_->netns_path;
}

Router::Router(std::unique_ptr<State> state) : state_(std::move(state)) {}
Router::Router(Router&&) noexcept = default;
Router& Router::operator=(Router&&) noexcept = default;
Router::~Router() = default;

}  // namespace cellrund::netpolicy
