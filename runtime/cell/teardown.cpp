#include "cell/teardown.hpp"

#include <signal.h>

#include <algorithm>
#include <charconv>

#include "base/file.hpp"
#include "containerd/client.hpp"
#include "host/cgroup.hpp"

namespace cellrund::cell {
namespace {

using base::Deadline;
using base::Errc;
using model::InventoryItem;
using model::ItemKind;

constexpr std::chrono::seconds kProcessPatience{5};
constexpr std::chrono::seconds kCgroupPatience{5};
constexpr std::chrono::milliseconds kRetryInterval{100};
constexpr std::size_t kMaxFolderEntries = 64;

class Teardown {
 public:
  Teardown(Services& services, const model::CellName& name, const model::Inventory& inventory, const std::string& boot_id)
      : services_(services), name_(name), inventory_(inventory), same_boot_(boot_id == services.facts.boot_id) {}

  std::vector<std::string> run() {
    note(netpolicy::kill_network(name_, services_.paths.run));
    kill_members();
    // The shim goes after containerd had its chance to end it in order.
    kill_journalled([](const InventoryItem& item) { return item.name != "shim"; });
    if (has(ItemKind::kContainer)) {
      remove_from_containerd();
    }
    kill_journalled([](const InventoryItem&) { return true; });
    for (std::string& failure : netpolicy::disconnect(name_, services_.paths.run)) {
      failures_.push_back("network: " + std::move(failure));
    }
    remove_cgroup();
    remove_folder(services_.paths.cell_folder(name_.uid));
    return std::move(failures_);
  }

  void kill_now() {
    (void)netpolicy::kill_network(name_, services_.paths.run);  // run() does it again and reports
    if (auto cgroup = services_.cgroups.adopt(name_.cgroup_path()); cgroup.ok()) {
      if (auto target = kill_target_of(*cgroup, {}); target.ok()) {
        (void)kill_all(*target);
      }
    }
    for_each_process([](const InventoryItem&, const base::PidFd& process) { (void)process.signal(SIGKILL); });
  }

 private:
  void note(base::Status status) {
    if (!status.ok()) {
      failures_.push_back(status.error().message());
    }
  }

  [[nodiscard]] bool has(ItemKind kind) const {
    return std::any_of(inventory_.begin(), inventory_.end(), [&](const InventoryItem& i) { return i.kind == kind; });
  }

  template <typename F>
  void for_each_process(F&& visit) {
    if (!same_boot_) {
      return;
    }
    for (const InventoryItem& item : inventory_) {
      const std::size_t colon = item.identity.find(':');
      if (item.kind != ItemKind::kProcess || colon == std::string::npos) {
        continue;
      }
      base::ProcessId id;
      const char* text = item.identity.data();
      (void)std::from_chars(text, text + colon, id.pid);
      (void)std::from_chars(text + colon + 1, text + item.identity.size(), id.start_time);
      // Gone, or another process by now: nothing of ours.
      if (auto process = base::PidFd::open(id); process.ok()) {
        visit(item, *process);
      }
    }
  }

  template <typename F>
  void kill_journalled(F&& wanted) {
    for_each_process([&](const InventoryItem& item, const base::PidFd& process) {
      if (!wanted(item)) {
        return;
      }
      note(process.signal(SIGKILL));
      const auto gone = process.wait_exit(Deadline::after(kProcessPatience));
      if (!gone.ok() || !*gone) {
        failures_.push_back("process " + item.name + " " + item.identity + " survives SIGKILL");
        return;
      }
      // Our own child leaves a zombie until it is waited for; a foreign one is its parent's business (ECHILD).
      (void)process.reap(Deadline::after(base::Nanoseconds(0)));
    });
  }

  void kill_members() {
    if (auto cgroup = services_.cgroups.adopt(name_.cgroup_path()); cgroup.ok()) {
      note(cgroup->kill(Deadline::after(kProcessPatience)));
    }
  }

  void remove_from_containerd() {
    if (services_.containerd == nullptr) {
      failures_.push_back("containerd: not configured any more, but the cell has objects in it");
      return;
    }
    containerd::Client& client = *services_.containerd;
    const std::string id = name_.marker();
    const auto call = containerd::Call(Deadline::after(kContainerdPatience));
    // Two failures pass: containerd is being restarted (Unavailable), or it has not yet cleaned up after a shim that died
    // ("ttrpc: closed", Unknown), which it does by itself. Everything else is final.
    for (;;) {
      (void)client.kill_task(id, SIGKILL, call);  // mostly dead already; delete_task tells
      auto task = client.delete_task(id, call);
      auto container = task.ok() ? client.delete_container(id, call) : base::ok();
      if (task.ok() && container.ok()) {
        return;
      }
      const base::Error& error = task.ok() ? container.error() : task.error();
      const bool passes = error.code() == Errc::kUnavailable || error.code() == Errc::kUnknown;
      if (!passes || call.deadline.expired() || !client.wait_ready(call.deadline).ok()) {
        failures_.push_back("containerd: " + error.message());
        return;
      }
      pause();
    }
  }

  // Between two looks at something that tells us nothing when it changes.
  static void pause() {
    if (auto timer = base::boot_timer(base::BootTime::now() + kRetryInterval); timer.ok()) {
      (void)base::wait_readable(timer->get(), Deadline::after(2 * kRetryInterval));
    }
  }

  void remove_cgroup() {
    auto cgroup = services_.cgroups.adopt(name_.cgroup_path());
    if (!cgroup.ok()) {
      if (cgroup.error().code() != Errc::kNotFound) {
        failures_.push_back(cgroup.error().message());
      }
      return;
    }
    for (const base::Error& error : cgroup->destroy(Deadline::after(kCgroupPatience))) {
      failures_.push_back(error.message());
    }
  }

  // The cell's own folder holds FIFOs and small files that the daemon made; no cell can write there.
  void remove_folder(const std::string& folder) {
    auto names = base::list_dir(folder, kMaxFolderEntries);
    if (!names.ok()) {
      if (names.error().code() != Errc::kNotFound) {
        failures_.push_back(names.error().message());
      }
      return;
    }
    for (const std::string& entry : *names) {
      note(base::remove_file(folder + "/" + entry));
    }
    note(base::remove_dir(folder));
  }

  Services& services_;
  const model::CellName& name_;
  const model::Inventory& inventory_;
  bool same_boot_;  // pid and start time tell a process within one boot only
  std::vector<std::string> failures_;
};

}  // namespace

std::vector<std::string> tear_down(Services& services, const model::CellName& name, const model::Inventory& inventory,
                                   const std::string& boot_id) {
  return Teardown(services, name, inventory, boot_id).run();
}

void kill_processes(Services& services, const model::CellName& name, const model::Inventory& inventory,
                    const std::string& boot_id) {
  Teardown(services, name, inventory, boot_id).kill_now();
}

}  // namespace cellrund::cell
