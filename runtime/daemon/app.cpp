#include "daemon/app.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "base/file.hpp"
#include "base/json.hpp"
#include "base/log.hpp"
#include "base/process.hpp"
#include "cell/closing.hpp"
#include "cell/lane_microvm.hpp"
#include "cell/lane_process.hpp"
#include "cell/node_impl.hpp"
#include "cell/recover.hpp"
#include "containerd/timeouts.hpp"
#include "crypto/digest.hpp"
#include "daemon/confine.hpp"
#include "daemon/keeper/start.hpp"
#include "daemon/listen.hpp"
#include "daemon/server.hpp"
#include "host/box.hpp"
#include "host/memory_room.hpp"
#include "image/containerd_store.hpp"

namespace cellrund::daemon {
namespace {

using base::Deadline;
using base::Errc;
using base::Error;

constexpr std::chrono::seconds kKeeperPatience{60};
constexpr std::chrono::seconds kProbePatience{60};
constexpr std::uint64_t kMaxBinary = 512ULL << 20U;
constexpr std::int64_t kForeignTaskUids = 256;
constexpr std::uint64_t kHostReserve = 512ULL << 20U;  // for the node itself, when the capacity comes from the host

bool enabled(const Config& config, std::string_view lane) {
  const auto& lanes = config.lanes.enabled;
  return std::find(lanes.begin(), lanes.end(), lane) != lanes.end();
}

// Beside root: VMMs of our slots and of foreign tasks, and boxes.
std::vector<residue::UidRange> node_uids_of(const Config& config) {
  const host::BoxIds boxes;
  return {{static_cast<std::uint32_t>(config.lanes.uid_base), static_cast<std::uint32_t>(config.lanes.uid_count + kForeignTaskUids)},
          {boxes.base, boxes.count}};
}

std::string shim_binary(const Config& config) { return config.paths.shim + "/containerd-shim-cellrun-v2"; }
std::string shim_config_path(const Config& config) { return config.paths.run + "/shim.toml"; }

// The shim is started by containerd and knows nothing of our configuration but this file.
base::Status write_shim_config(const Config& config) {
  const auto quoted = [](const std::string& s) { return base::json::write(base::json::Value(s)); };  // a TOML basic string
  const std::string text = "# Written by cellrund at each start.\n"
                           "kernel = " + quoted(config.paths.guest + "/vmlinux") + "\n" +
                           "initrd = " + quoted(config.paths.guest + "/initrd") + "\n" +
                           "accel = " + quoted(config.lanes.accel) + "\n" +
                           // Tasks that are not ours (ctr) take uids above those of our slots.
                           "uid_range = [" + std::to_string(config.lanes.uid_base + config.lanes.uid_count) + ", " +
                               std::to_string(kForeignTaskUids) + "]\n" +
                           "state_dir = " + quoted(config.paths.state + "/shim") + "\n" +
                           "boot_timeout_seconds = " + std::to_string(config.lanes.boot_timeout_seconds) + "\n";
  return base::write_file_atomic(shim_config_path(config), text, 0600);
}

// kvm or tcg, found by a real boot; the shim caches its answer.
base::Result<std::string> probe_accel(const Config& config) {
  const auto result = CR_TRY(base::run_command(
      {.argv = {shim_binary(config), "probe", "--config", shim_config_path(config)}, .env = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}},
      "", Deadline::after(kProbePatience)));
  if (result.exit.signaled || result.exit.value != 0) {
    return Error(Errc::kFailedPrecondition, "boot probe: " + base::log::quoted(result.err, 512));
  }
  const base::json::Value answer = CR_TRY(base::json::parse(result.out, {}).context("boot probe"));
  const base::json::Value* accel = answer.find("accel");
  if (accel == nullptr || accel->as_string() == nullptr || (*accel->as_string() != "kvm" && *accel->as_string() != "tcg")) {
    return Error(Errc::kDataLoss, "boot probe: no accelerator in its answer");
  }
  return *accel->as_string();
}

// Before the host swaps or stalls a further cell waits, whatever the limits of the configuration leave.
admit::HoldCheck memory_hold(const Config& config) {
  const host::MemoryBounds bounds{.reserve_bytes = static_cast<std::uint64_t>(config.capacity.memory_reserve_bytes),
                                  .pressure_percent = static_cast<std::uint32_t>(config.capacity.memory_pressure_percent)};
  return [bounds](const admit::CapacityRequest& request) {
    return host::memory_shortage(host::memory_state(), bounds, request.memory_bytes);
  };
}

admit::CapacityLimits capacity_of(const Config& config) {
  const auto cpus = static_cast<std::uint64_t>(std::max(1L, ::sysconf(_SC_NPROCESSORS_ONLN)));
  const auto pages = static_cast<std::uint64_t>(std::max(0L, ::sysconf(_SC_PHYS_PAGES)));
  const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  const std::uint64_t memory = pages * page;
  admit::CapacityLimits limits;
  limits.cpu_millis = config.capacity.cpu_millis != 0 ? static_cast<std::uint64_t>(config.capacity.cpu_millis) : cpus * 1000;
  limits.memory_bytes = config.capacity.memory_bytes != 0 ? static_cast<std::uint64_t>(config.capacity.memory_bytes)
                                                          : memory - std::min(memory / 2, std::max(kHostReserve, memory / 8));
  const std::uint64_t cells = config.capacity.cells != 0 ? static_cast<std::uint64_t>(config.capacity.cells) : cpus * 32;
  limits.cells = static_cast<std::uint32_t>(std::min<std::uint64_t>(cells, static_cast<std::uint64_t>(config.lanes.uid_count)));
  limits.queue = static_cast<std::uint32_t>(config.capacity.queue);
  return limits;
}

std::string kernel_release() {
  utsname names{};
  (void)::uname(&names);  // cannot fail with a valid pointer (uname(2))
  return names.release;
}

}  // namespace

// In the order of construction; destroyed in reverse, so nothing outlives what it refers to.
struct App::Parts {
  Config config;
  std::optional<crypto::PrivateKey> node_key;
  std::optional<ledger::Ledger> ledger;
  std::optional<keeper::Kept> kept;
  std::optional<containerd::Client> client;
  std::unique_ptr<image::ContentStore> content;
  std::unique_ptr<image::Preparer> images;
  std::unique_ptr<image::InputStore> inputs;
  std::optional<netpolicy::Router> router;
  std::optional<host::CgroupTree> cgroups;
  std::unique_ptr<admit::CapacityPool> capacity;
  std::unique_ptr<cell::Watchdog> watchdog;
  std::unique_ptr<cell::SecretStore> secrets;
  cell::JobTable table;
  std::optional<cell::Services> services;
  std::string accel;
  std::unique_ptr<cell::NodeImpl> node;

  base::Status open_state();
  base::Status start_containerd();
  base::Status open_kernel();
  base::Status make_services();
  void add_lanes();
  base::Status make_node();
};

base::Status App::Parts::open_state() {
  CR_CHECK(base::make_dirs(config.paths.state, 0700));
  CR_CHECK(base::make_dirs(config.paths.run, 0755));
  CR_CHECK(base::make_dirs(config.paths.run + "/cells", 0700));
  node_key = CR_TRY(crypto::PrivateKey::load(config.paths.node_key).context("node key (make one: cellrun keygen)"));
  ledger = CR_TRY(ledger::Ledger::open(config.paths.state + "/ledger.db"));
  const std::string boot = CR_TRY(base::boot_id());
  (void)CR_TRY(ledger->exchange_boot_id(boot));  // each job knows its own boot
  return base::ok();
}

base::Status App::Parts::start_containerd() {
  if (config.containerd.mode == "embedded") {
    CR_CHECK(write_shim_config(config));
    kept = CR_TRY(keeper::ensure_keeper(config.paths.shim + "/cellrun-keeper",
                                        {.run_dir = config.paths.run,
                                         .root = config.containerd.root,
                                         .state = config.containerd.state,
                                         .socket = config.containerd.socket,
                                         .containerd = config.containerd.binary,
                                         .shim_dir = config.paths.shim,
                                         .shim_config = shim_config_path(config)},
                                        Deadline::after(kKeeperPatience))
                      .context("start the embedded containerd"));
  } else {
    CR_CHECK(write_shim_config(config));
  }
  // The keeper is up and keeps what it has. From here on there are threads, first of all the client's.
  CR_CHECK(confine().context("confine cellrund"));
  client = CR_TRY(containerd::Client::create(config.containerd.socket, config.containerd.namespace_));
  // A containerd that hangs must not keep the daemon from ending cells whose deadline has passed: it is waited for once.
  if (auto ready = client->wait_ready(Deadline::after(containerd::kQueryTimeout)); !ready.ok()) {
    base::log::warn("step=containerd error=" + base::log::quoted(ready.error().message()) + ", ignoring: cells that need it will fail");
  } else {
    CR_CHECK(client->ensure_namespace(containerd::Call(Deadline::after(containerd::kMutateTimeout))));
  }
  content = std::make_unique<image::ContainerdStore>(*client);
  const auto bytes = [](std::int64_t value) { return static_cast<std::uint64_t>(value); };
  inputs = CR_TRY(image::InputStore::create({.dir = config.paths.state + "/inputs",
                                             .max_archive_bytes = bytes(config.inputs.max_archive_bytes),
                                             .max_peer_bytes = bytes(config.inputs.max_peer_bytes),
                                             .max_bytes = bytes(config.inputs.max_bytes),
                                             .keep = std::chrono::seconds(config.inputs.keep_seconds)}));
  images = CR_TRY(image::Preparer::create(
      {.images_dir = config.paths.state + "/images", .unpack_program = config.paths.shim + "/cellrun-unpack"}));
  return base::ok();
}

base::Status App::Parts::open_kernel() {
  const netpolicy::Attach attach = CR_TRY(netpolicy::parse_attach(config.network.attach));
  netpolicy::RouterOptions options{.run_dir = config.paths.run, .node = ledger->node_tag(), .attach = attach};
  options.uplink = config.network.uplink == "none" ? std::string() : config.network.uplink;
  options.resolver = config.paths.shim + "/cellrun-resolver";
  for (const std::string& upstream : config.network.dns_upstream) {
    options.dns_upstreams.push_back(CR_TRY(model::parse_ipv4(upstream).context("network.dns_upstream")));
  }
  router = CR_TRY(netpolicy::Router::open(options).context("router"));
  cgroups = CR_TRY(host::CgroupTree::discover());
  capacity = std::make_unique<admit::CapacityPool>(capacity_of(config), memory_hold(config));
  watchdog = CR_TRY(cell::Watchdog::start());
  const char* credentials = ::secure_getenv("CREDENTIALS_DIRECTORY");  // systemd.exec(5)
  secrets = std::make_unique<cell::SecretStore>(config.secrets.directory, credentials == nullptr ? "" : credentials);
  return base::ok();
}

base::Status App::Parts::make_services() {
  model::NodeFacts facts{.id = config.node.id,
                         .boot_id = CR_TRY(base::boot_id()),
                         .kernel = kernel_release(),
                         .cellrun_version = CELLRUN_VERSION,
                         .config_digest = config_digest(config),
                         .key_id = node_key->public_key().key_id()};
  residue::Paths scan;
  scan.run_dir = config.paths.run;
  scan.state_dir = config.paths.state;
  scan.containerd = residue::ContainerdPlace{.socket = config.containerd.socket,
                                             .state = config.containerd.state,
                                             .root = config.containerd.root,
                                             .name_space = config.containerd.namespace_};
  services.emplace(cell::Services{.paths = {.state = config.paths.state,
                                            .run = config.paths.run,
                                            .collector = config.paths.shim + "/cellrun-collect"},
                                  .tag = ledger->node_tag(),
                                  .facts = std::move(facts),
                                  .vmm_uid_base = static_cast<std::uint32_t>(config.lanes.uid_base),
                                  .scan_paths = std::move(scan),
                                  .scan_uids = node_uids_of(config),
                                  .ledger = *ledger,
                                  .table = table,
                                  .capacity = *capacity,
                                  .secrets = *secrets,
                                  .watchdog = *watchdog,
                                  .images = *images,
                                  .content = *content,
                                  .inputs = *inputs,
                                  .router = *router,
                                  .cgroups = *cgroups,
                                  .containerd = &*client,
                                  .node_key = *node_key,
                                  .lanes = {}});
  return base::ok();
}

// A lane that cannot work here is left out with the reason in the log; jobs that name it get LaneUnavailable.
void App::Parts::add_lanes() {
  const auto unavailable = [](std::string_view lane, const Error& error) {
    base::log::warn("step=lane lane=" + std::string(lane) + " outcome=unavailable error=" + base::log::quoted(error.message(), 512));
  };
  if (enabled(config, "process")) {
    if (auto lane = cell::make_process_lane(config.paths.shim + "/cell-init"); lane.ok()) {
      services->lanes.emplace(model::Lane::kProcess, std::move(lane).value());
    } else {
      unavailable("process", lane.error());
    }
  }
  if (enabled(config, "microvm")) {
    auto found = probe_accel(config);
    if (!found.ok()) {
      unavailable("microvm", found.error());
      return;
    }
    const auto shim = base::open_file(shim_binary(config), O_RDONLY);
    auto digest = shim.ok() ? crypto::digest_of_fd(shim->get(), kMaxBinary) : base::Result<std::string>(shim.error().clone());
    if (!digest.ok()) {
      unavailable("microvm", digest.error());
      return;
    }
    accel = std::move(found).value();
    services->lanes.emplace(model::Lane::kMicrovm,
                            cell::make_microvm_lane({.containerd_socket = config.containerd.socket,
                                                     .containerd_state = config.containerd.state,
                                                     .containerd_namespace = config.containerd.namespace_,
                                                     .shim_config = shim_config_path(config),
                                                     .shim_digest = std::move(digest).value(),
                                                     .vmm_uid_base = static_cast<std::uint32_t>(config.lanes.uid_base),
                                                     .boot_timeout = std::chrono::seconds(config.lanes.boot_timeout_seconds),
                                                     .emulated = accel == "tcg"},
                                                    *client));
  }
}

base::Status App::Parts::make_node() {
  cell::NodeOptions options;
  options.trust_dir = config.paths.trust;
  options.verify.audiences = config.node.pools;
  options.verify.audiences.push_back(config.node.id);
  if (!config.node.fleet.empty()) {
    options.verify.audiences.push_back(config.node.fleet);
  }
  options.verify.require_audience = config.policy.require_audience;
  options.verify.max_validity = std::chrono::seconds(config.policy.max_validity_seconds);
  options.verify.clock_skew = std::chrono::seconds(config.policy.clock_skew_seconds);
  options.policy.resolves_names = !config.network.dns_upstream.empty();
  options.policy.allow_emulated_tier2 = config.lanes.allow_emulated_tier2;
  for (const auto& [lane, driver] : services->lanes) {
    admit::Accel kind = admit::Accel::kNone;
    if (lane == model::Lane::kMicrovm) {
      kind = accel == "kvm" ? admit::Accel::kKvm : admit::Accel::kTcg;
    }
    options.policy.lanes.push_back({lane, kind});
  }
  options.accel = accel;
  node = CR_TRY(cell::NodeImpl::create(*services, std::move(options)));
  return base::ok();
}

App::App(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
App::~App() = default;

base::Result<std::unique_ptr<App>> App::build(const Config& config) {
  auto parts = std::make_unique<Parts>();
  parts->config = config;
  CR_CHECK(parts->open_state());
  CR_CHECK(parts->start_containerd());
  CR_CHECK(parts->open_kernel());
  CR_CHECK(parts->make_services());
  const cell::Recovered recovered = CR_TRY(cell::recover(*parts->services).context("recover"));
  if (recovered.jobs != 0) {
    base::log::info("step=recover jobs=" + std::to_string(recovered.jobs) + " quarantined=" + std::to_string(recovered.quarantined));
  }
  parts->add_lanes();
  CR_CHECK(parts->make_node());
  return std::unique_ptr<App>(new App(std::move(parts)));
}

base::Status App::run() {
  sigset_t ends;
  (void)::sigemptyset(&ends);
  (void)::sigaddset(&ends, SIGTERM);
  (void)::sigaddset(&ends, SIGINT);
  const base::UniqueFd signals(::signalfd(-1, &ends, SFD_CLOEXEC));  // blocked by main() before the first thread
  if (!signals) {
    return Error::from_errno("signalfd");
  }
  const Config& config = parts_->config;
  auto server = CR_TRY(Server::start({.socket = config.paths.socket,
                                      .admin_socket = config.paths.admin_socket,
                                      .group = group_id("cellrun"),  // who may speak to the ordinary socket beside root
                                      .limits = config.limits,
                                      .version = CELLRUN_VERSION,
                                      .node_id = config.node.id},
                                     *parts_->node));
  CR_CHECK(base::write_file_atomic(config.paths.run + "/cellrund.pid", std::to_string(::getpid()) + "\n", 0644));
  base::log::info("step=serve outcome=ready socket=" + config.paths.socket);

  for (;;) {
    // The keeper is watched here: it dies only if somebody kills it, and then a new one adopts containerd.
    std::array<pollfd, 2> polls{{{signals.get(), POLLIN, 0}, {parts_->kept ? parts_->kept->keeper.fd() : -1, POLLIN, 0}}};
    if (::poll(polls.data(), polls.size(), -1) < 0) {
      continue;  // EINTR
    }
    if (polls[1].revents != 0) {
      base::log::error("step=keeper outcome=died, restart cellrund to get a new one; cells and containerd go on");
      parts_->kept.reset();
    }
    if (polls[0].revents != 0) {
      break;
    }
  }
  base::log::info("step=shutdown outcome=started");
  parts_->node->shutdown();
  server.reset();
  CR_CHECK(base::remove_file(config.paths.run + "/cellrund.pid"));
  base::log::info("step=shutdown outcome=done");
  return base::ok();
}

base::Result<std::vector<std::string>> remove_node(const Config& config) {
  std::vector<std::string> failures;
  const std::string path = config.paths.state + "/ledger.db";
  if (!base::exists(path)) {
    return failures;  // no node was ever made here
  }
  const ledger::Ledger ledger = CR_TRY(ledger::Ledger::open(path));
  for (std::string& failure : netpolicy::Router::destroy(config.paths.run, ledger.node_tag())) {
    failures.push_back(std::move(failure));
  }
  if (auto tree = host::CgroupTree::discover(); tree.ok()) {
    tree->remove_empty_parents("/cellrun/" + ledger.node_tag().value + "/cell");
  } else {
    failures.push_back(tree.error().message());
  }
  return failures;
}

}  // namespace cellrund::daemon
