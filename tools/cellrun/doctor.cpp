// doctor: can this host and this node do their work? 0 yes, 3 something is wrong, 4 something could not be looked at.
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/timex.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>

#include "admit/trust.hpp"
#include "base/file.hpp"
#include "crypto/keys.hpp"
#include "groups.hpp"
#include "image/preparer.hpp"
#include "netpolicy/router.hpp"

namespace cellrund::cli {
namespace {

enum class Finding { kOk, kRemark, kWrong, kUntold };

struct Check {
  std::string group;
  std::string name;
  Finding finding = Finding::kOk;
  std::string detail;
  std::string hint;
};

class Report {
 public:
  void add(std::string group, std::string name, Finding finding, std::string detail, std::string hint = {}) {
    checks_.push_back({std::move(group), std::move(name), finding, std::move(detail), std::move(hint)});
  }
  // Ok when `fine`, wrong with the hint otherwise.
  void expect(std::string group, std::string name, bool fine, std::string detail, std::string hint) {
    add(std::move(group), std::move(name), fine ? Finding::kOk : Finding::kWrong, std::move(detail), fine ? "" : std::move(hint));
  }
  [[nodiscard]] const std::vector<Check>& checks() const { return checks_; }
  [[nodiscard]] bool has(Finding finding) const {
    for (const Check& check : checks_) {
      if (check.finding == finding) {
        return true;
      }
    }
    return false;
  }

 private:
  std::vector<Check> checks_;
};

std::string_view name_of(Finding finding) {
  switch (finding) {
    case Finding::kOk: return "ok";
    case Finding::kRemark: return "remark";
    case Finding::kWrong: return "wrong";
    case Finding::kUntold: return "unknown";
  }
  return "";
}

// major * 1000 + minor of "6.1.0-18-amd64"; 0 when it does not read so.
int kernel_number(std::string_view release) {
  int major = 0;
  int minor = 0;
  const auto [dot, error] = std::from_chars(release.data(), release.data() + release.size(), major);
  if (error != std::errc() || dot == release.data() + release.size() || *dot != '.') {
    return 0;
  }
  return std::from_chars(dot + 1, release.data() + release.size(), minor).ec == std::errc() ? major * 1000 + minor : 0;
}

// A program where the product runs it, and nowhere else.
void check_program(Report& report, const std::string& path, const std::string& hint) {
  report.expect("host", path.substr(path.find_last_of('/') + 1), ::access(path.c_str(), X_OK) == 0, path, hint);
}

void check_cgroups(Report& report) {
  const base::Result<std::string> mounts = base::read_file("/proc/self/mountinfo", std::size_t{4} << 20U);
  if (!mounts) {
    report.add("host", "cgroups", Finding::kUntold, mounts.error().message());
    return;
  }
  const bool v2 = mounts->find(" - cgroup2 ") != std::string::npos;
  const bool v1 = mounts->find(" - cgroup ") != std::string::npos;
  report.expect("host", "cgroups", v2 || v1, v2 ? (v1 ? "hybrid (v1 and v2)" : "v2") : v1 ? "v1" : "none mounted",
                "mount a cgroup hierarchy: mount -t cgroup2 none /sys/fs/cgroup");
}

void check_kernel(Report& report) {
  constexpr int kOldest = 5014;  // cgroup.kill
  constexpr int kTcx = 6006;
  utsname name{};
  (void)::uname(&name);
  const int number = kernel_number(name.release);
  report.expect("host", "kernel", number >= kOldest, name.release, "5.14 or newer is needed; Debian 12 ships 6.1");
  report.expect("host", "btf", base::exists("/sys/kernel/btf/vmlinux"), "/sys/kernel/btf/vmlinux",
                "a kernel with CONFIG_DEBUG_INFO_BTF is needed");
  report.add("host", "egress hook", Finding::kOk, number >= kTcx ? "tcx" : "clsact");
}

void check_kvm(Report& report, bool emulation_allowed) {
  const base::UniqueFd kvm(::open("/dev/kvm", O_RDWR | O_CLOEXEC));
  if (kvm) {
    report.add("host", "kvm", Finding::kOk, "/dev/kvm opens; whether a guest starts, the node finds out by booting one");
  } else {
    report.add("host", "kvm", emulation_allowed ? Finding::kRemark : Finding::kWrong,
               "/dev/kvm does not open: cells would be emulated",
               "enable virtualisation, or allow emulation knowingly: lanes.allow_emulated_tier2 = true");
  }
}

void check_clock(Report& report) {
  timex state{};
  const int clock = ::adjtimex(&state);
  const bool synchronised = clock >= 0 && clock != TIME_ERROR && (state.status & STA_UNSYNC) == 0;
  report.add("host", "clock", synchronised ? Finding::kOk : Finding::kRemark,
             synchronised ? "synchronised" : "the kernel does not call it synchronised",
             synchronised ? "" : "run an NTP client: signed validity windows depend on the clock");
}

void check_disk(Report& report, const std::string& state_dir) {
  constexpr std::uint64_t kEnough = std::uint64_t{1} << 30U;
  struct statvfs fs {};
  std::string path = state_dir;
  while (::statvfs(path.c_str(), &fs) != 0) {
    const std::size_t slash = path.find_last_of('/');
    if (slash == 0 || slash == std::string::npos) {
      path = "/";
      if (::statvfs("/", &fs) != 0) {
        report.add("host", "disk", Finding::kUntold, base::Error::from_errno("statvfs /").message());
        return;
      }
      break;
    }
    path.resize(slash);
  }
  const std::uint64_t free = static_cast<std::uint64_t>(fs.f_bavail) * fs.f_frsize;
  report.expect("host", "disk", free >= kEnough, std::to_string(free >> 20U) + "Mi free at " + path,
                "at least 1Gi is needed for images, logs and the ledger");
}

bool has_microvm(const daemon::Config& config) {
  const std::vector<std::string>& lanes = config.lanes.enabled;
  return std::find(lanes.begin(), lanes.end(), "microvm") != lanes.end();
}

void check_host(Report& report, const daemon::Config& config) {
  report.add("host", "root", ::geteuid() == 0 ? Finding::kOk : Finding::kUntold,
             ::geteuid() == 0 ? "yes" : "no: some checks cannot look", ::geteuid() == 0 ? "" : "run it as root");
  check_kernel(report);
  check_cgroups(report);
  if (has_microvm(config)) {
    check_kvm(report, config.lanes.allow_emulated_tier2);
    check_program(report, "/usr/bin/qemu-system-x86_64", "apt-get install qemu-system-x86");  // shim/config.hpp
  }
  if (config.containerd.mode == "embedded") {
    check_program(report, config.containerd.binary, "apt-get install containerd, or set containerd.binary");
  } else {
    report.expect("host", "containerd", base::exists(config.containerd.socket), config.containerd.socket,
                  "start the host's containerd, or set containerd.socket or containerd.mode");
  }
  check_program(report, image::PreparerOptions{}.mkfs_program, "apt-get install erofs-utils");
  check_program(report, netpolicy::RouterOptions{}.nft, "apt-get install nftables");
  check_clock(report);
  check_disk(report, config.paths.state);
}

void check_files(Report& report, const daemon::Config& config) {
  std::vector<std::string> helpers = {"cellrun-keeper", "cellrun-unpack", "cellrun-collect", "cellrun-resolver", "cell-init", "cellrun-image", "cellsweep"};
  if (has_microvm(config)) {
    helpers.emplace_back("containerd-shim-cellrun-v2");
  }
  for (const std::string& helper : helpers) {
    const std::string path = config.paths.shim + "/" + helper;
    report.expect("node", helper, ::access(path.c_str(), X_OK) == 0, path, "install cellrun completely, or set paths.shim");
  }
  if (!has_microvm(config)) {
    return;
  }
  for (const char* file : {"vmlinux", "initrd"}) {
    const std::string path = config.paths.guest + "/" + file;
    report.expect("node", std::string("guest ") + file, ::access(path.c_str(), R_OK) == 0, path,
                  "shim/guest/make-image " + config.paths.guest + " makes it");
  }
}

void check_keys(Report& report, const daemon::Config& config) {
  constexpr std::size_t kMaxKeyBytes = 4096;
  const base::Result<std::string> pem = base::read_file(config.paths.node_pub, kMaxKeyBytes);
  const base::Result<crypto::PublicKey> pub =
      pem ? crypto::PublicKey::from_pem(*pem) : base::Result<crypto::PublicKey>(pem.error().clone());
  report.expect("node", "node.pub", pub.ok(), pub ? "key id " + pub->key_id() : pub.error().message(),
                "cellrun keygen " + config.paths.node_key.substr(0, config.paths.node_key.find_last_of('.')) + " makes the pair");
  if (::geteuid() != 0) {
    report.add("node", "node.key", Finding::kUntold, "only root can look", "run it as root");
    return;
  }
  const base::Result<crypto::PrivateKey> key = crypto::PrivateKey::load(config.paths.node_key);
  if (!key) {
    report.add("node", "node.key", Finding::kWrong, key.error().message(), "a PKCS#8 PEM file of mode 0600 that belongs to root");
    return;
  }
  const bool pair = pub.ok() && key->public_key().key_id() == pub->key_id();
  report.expect("node", "node.key", pair, pair ? "belongs to node.pub" : "does not belong to node.pub",
                "verifiers that hold node.pub would refuse this node's records");
}

void check_trust(Report& report, const daemon::Config& config) {
  const base::Result<admit::TrustStore> store = admit::TrustStore::load(config.paths.trust);
  if (!store) {
    const bool hidden = store.error().code() == base::Errc::kPermissionDenied && ::geteuid() != 0;
    report.add("node", "trust", hidden ? Finding::kUntold : Finding::kWrong, store.error().message(),
               "until this is mended every job is refused");
    return;
  }
  report.expect("node", "trust", !store->grants().empty(), std::to_string(store->grants().size()) + " trusted keys",
                "every job is refused: cellrun trust add KEY.pub --namespace NS");
}

void check_daemon(Report& report, const Context& context) {
  base::Result<api::Client, Failed> client = context.connect();
  base::Result<api::Pong, Failed> pong = client ? ask<api::Pong>(*client, api::Ping{}, std::chrono::seconds(5))
                                                : base::Result<api::Pong, Failed>(std::move(client).error());
  if (!pong) {
    report.add("node", "daemon", Finding::kWrong, pong.error().failure.message, pong.error().failure.hint);
    return;
  }
  report.expect("node", "daemon", pong->version == CELLRUN_VERSION, "cellrund " + pong->version + " as " + pong->node_id,
                "cellrun is " CELLRUN_VERSION ": restart cellrund after an upgrade");
  const base::Result<api::Capacity, Failed> capacity = ask<api::Capacity>(*client, api::GetCapacity{});
  if (!capacity) {
    report.add("node", "capacity", Finding::kUntold, capacity.error().failure.message);
    return;
  }
  std::string lanes;
  for (const std::string& lane : capacity->lanes) {
    lanes += (lanes.empty() ? "" : " ") + lane;
  }
  report.expect("node", "lanes", !capacity->lanes.empty(),
                lanes.empty() ? "none available" : lanes + (capacity->accel.empty() ? "" : ", accel " + capacity->accel),
                "the log of cellrund says why each lane is missing");
  report.expect("node", "quarantine", capacity->cells_quarantined == 0,
                std::to_string(capacity->cells_quarantined) + " of " + std::to_string(capacity->cells_total) + " cells",
                "cellrun ps -a shows the jobs whose teardown is not CLEAN; cellrun residue scan shows what is left");
}

// Until the daemon answers or the time is over; what it then says is a check like any other.
void wait_for_daemon(const Context& context, std::chrono::seconds budget) {
  constexpr int kPauseMs = 200;
  const base::Deadline deadline = base::Deadline::after(budget);
  while (!deadline.expired()) {
    base::Result<api::Client, Failed> client = context.connect();
    if (client && ask<api::Pong>(*client, api::Ping{}, std::chrono::seconds(2)).ok()) {
      return;
    }
    (void)::poll(nullptr, 0, std::min(kPauseMs, deadline.poll_timeout_ms()));
  }
}

std::string render(const Context& context, const Report& report) {
  if (context.style().json()) {
    base::json::Array items;
    for (const Check& check : report.checks()) {
      items.emplace_back(base::json::Object{{"group", check.group}, {"name", check.name}, {"result", name_of(check.finding)},
                                            {"detail", printable(check.detail)}, {"hint", check.hint}});
    }
    return list_text(context.format(), "checks", std::move(items));
  }
  std::string out;
  std::string group;
  for (const Check& check : report.checks()) {
    if (check.group != group) {
      out += (out.empty() ? "" : "\n") + check.group + "\n";
      group = check.group;
    }
    const Colour colour = check.finding == Finding::kOk ? Colour::kGreen
                          : check.finding == Finding::kWrong ? Colour::kRed : Colour::kYellow;
    const std::string word(name_of(check.finding));
    out += "  " + paint(word, colour, context.style().colour_out) + std::string(9 - word.size(), ' ') + check.name +
           std::string(check.name.size() < 28 ? 28 - check.name.size() : 1, ' ') + printable(check.detail) + "\n";
    if (!check.hint.empty()) {
      out += "           hint: " + printable(check.hint) + "\n";
    }
  }
  return out;
}

}  // namespace

Outcome doctor(Context& context) {
  if (const std::optional<std::string> text = context.arguments().value("wait")) {
    constexpr std::int64_t kLongest = 3600;
    std::int64_t seconds = 0;
    const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), seconds);
    if (error != std::errc() || end != text->data() + text->size() || seconds < 0 || seconds > kLongest) {
      return misuse("doctor: --wait " + printable(*text) + " is no number of seconds up to 3600", "cellrun doctor --wait 30");
    }
    wait_for_daemon(context, std::chrono::seconds(seconds));
  }
  Report report;
  const base::Result<daemon::LoadedConfig, Failed> loaded = context.load_config();
  const daemon::Config config = loaded ? loaded->config : daemon::Config{};
  check_host(report, config);
  if (!context.arguments().has("pre")) {
    report.expect("node", "configuration", loaded.ok(),
                  loaded ? daemon::config_digest(config) : loaded.error().failure.message, "cellrun config default prints every key");
    if (loaded) {
      check_files(report, config);
      check_keys(report, config);
      check_trust(report, config);
      check_daemon(report, context);
    }
  }
  if (!print(render(context, report))) {
    return kExitOurs;
  }
  return report.has(Finding::kWrong) ? kExitFound : report.has(Finding::kUntold) ? kExitUntold : 0;
}

}  // namespace cellrund::cli
