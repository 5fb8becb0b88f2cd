// Finding a virtio-serial port by its name, without udev.
#pragma once

#include <string_view>

#include "base/clock.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"

namespace cellrund::guest {

// Ports and their names appear some time after the driver was loaded; each step is announced by the kernel.
class PortFinder {
 public:
  // Before the driver is loaded, so that no announcement is missed (netlink(7), NETLINK_KOBJECT_UEVENT).
  static base::Result<PortFinder> create();
  // Open for reading and writing, non-blocking. kDeadlineExceeded when no port of that name shows up.
  base::Result<base::UniqueFd> open(std::string_view name, base::Deadline deadline);

 private:
  explicit PortFinder(base::UniqueFd events) noexcept : events_(std::move(events)) {}
  base::UniqueFd events_;
};

}  // namespace cellrund::guest
