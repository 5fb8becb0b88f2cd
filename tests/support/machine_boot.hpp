// Boots the real guest under emulation, with the fixed devices of every cell and none of the confinement that the shim
// adds, and runs one workload in it.
#pragma once

#include <optional>
#include <string>

#include "base/process.hpp"
#include "tests/support/cell_driver.hpp"

namespace cellrund::tests {

class MachineBoot {
 public:
  // From the environment: CELLRUN_GUEST_DIR (make-image's output), CELLRUN_QEMU, CELLRUN_MEMORY (MiB), CELLRUN_APPEND
  // (kernel parameters), CELLRUN_CONSOLE=1 (the guest's console on stderr). nullopt, and a line on stdout, when there is
  // no guest image or no QEMU.
  static std::optional<MachineBoot> from_environment(std::string rootfs);
  MachineBoot(MachineBoot&&) = default;
  MachineBoot& operator=(MachineBoot&&) = delete;
  MachineBoot(const MachineBoot&) = delete;
  MachineBoot& operator=(const MachineBoot&) = delete;
  ~MachineBoot();

  // `prepare` may set the driver's hooks. The machine is gone when this returns.
  CellRun run(const wire::Workload& workload, const std::function<void(CellDriver&)>& prepare = {});
  [[nodiscard]] base::Nanoseconds cpu_time() const noexcept { return cpu_time_; }

 private:
  MachineBoot() = default;
  [[nodiscard]] std::vector<std::string> arguments() const;

  std::string guest_dir_, qemu_, memory_, append_, rootfs_, inputs_, scratch_;
  bool console_ = false;
  base::Nanoseconds cpu_time_{0};
};

}  // namespace cellrund::tests
