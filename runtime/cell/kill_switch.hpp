// The node's kill switch as the daemon holds it: the value in the kernel, and a file in the state folder that keeps it
// over restarts of the daemon and of the machine. Thread-safe.
#pragma once

#include <atomic>
#include <mutex>
#include <string>

#include "base/result.hpp"
#include "model/node.hpp"
#include "netpolicy/router.hpp"

namespace cellrund::cell {

class KillSwitch {
 public:
  // Engages the kernel's again when the file says so. `router` outlives the object.
  static base::Result<KillSwitch> open(const std::string& state_dir, const netpolicy::Router& router);

  // On: first the kernel, then the file; off: the other way round. On failure it may be engaged where it was not to be,
  // never the reverse.
  base::Status set(bool engaged);
  [[nodiscard]] bool engaged() const noexcept { return engaged_.load(); }

  // What is true of one cell's network: "cut", "none" (it has no network), "open", or why nobody can tell.
  [[nodiscard]] std::string truth_of(const model::CellName& name) const;

  KillSwitch(KillSwitch&& other) noexcept
      : file_(std::move(other.file_)), router_(other.router_), engaged_(other.engaged_.load()) {}
  KillSwitch& operator=(KillSwitch&&) = delete;
  KillSwitch(const KillSwitch&) = delete;
  KillSwitch& operator=(const KillSwitch&) = delete;
  ~KillSwitch() = default;

 private:
  KillSwitch(std::string file, const netpolicy::Router& router) : file_(std::move(file)), router_(router) {}
  std::string file_;
  const netpolicy::Router& router_;
  std::atomic<bool> engaged_{false};
  std::mutex setting_;  // one change at a time: kernel and file always say the same
};

}  // namespace cellrund::cell
