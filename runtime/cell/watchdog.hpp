// The watchdog: one thread that owns every deadline of the node. It waits on descriptors only (boot-time timers and an
// eventfd) and calls nothing that can wait for containerd, for a disk or for a lock that such a call may hold. When a
// deadline plus grace has passed it kills the cell's processes by cgroup and by pidfd. The shim, and cell-init in the
// `process` lane, hold the same deadline, so that it also fires while this process is dead.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "base/process.hpp"
#include "base/result.hpp"

namespace cellrund::cell {

// What to kill. Descriptors are opened before the guest runs, so that killing needs no path look-up.
struct KillTarget {
  base::UniqueFd cgroup_kill;           // cgroup.kill (Linux 5.14), opened for writing; invalid where there is none
  std::vector<base::PidFd> processes;   // the VMM, or cell-init
};

class Watchdog {
 public:
  class Lease;

  static base::Result<std::unique_ptr<Watchdog>> start();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;
  Watchdog(Watchdog&&) = delete;
  Watchdog& operator=(Watchdog&&) = delete;
  // Stops the thread. Armed cells are not killed: their lanes hold the deadline too.
  ~Watchdog();

  // Kills `target` at `when`. `on_fired` runs on the watchdog thread with the boot time of the kill and must not block.
  base::Result<Lease> arm(base::BootTime when, KillTarget target, std::function<void(base::BootTime)> on_fired);

 private:
  struct Impl;
  explicit Watchdog(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;  // shared with leases, which may outlive the watchdog at shutdown
};

// Disarms on destruction.
class Watchdog::Lease {
 public:
  Lease(Lease&&) noexcept = default;
  Lease& operator=(Lease&&) noexcept;
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;
  ~Lease();
  // Kills the target now, whatever the time.
  void kill_now();

 private:
  friend class Watchdog;
  Lease(std::shared_ptr<Impl> impl, std::uint64_t id) : impl_(std::move(impl)), id_(id) {}
  std::shared_ptr<Impl> impl_;
  std::uint64_t id_ = 0;
};

// Writes "1" to cgroup.kill and sends SIGKILL by pidfd; collects what failed. A process that is gone is no failure.
std::vector<std::string> kill_all(const KillTarget& target);

}  // namespace cellrund::cell
