#include "shim/guest/port.hpp"

#include <fcntl.h>
#include <linux/netlink.h>
#include <sys/socket.h>

#include <array>
#include <optional>
#include <string>

#include "base/file.hpp"

namespace cellrund::guest {
namespace {

using base::Errc;
using base::Error;

constexpr const char* kPorts = "/sys/class/virtio-ports";

std::optional<std::string> find_device(std::string_view name) {
  constexpr std::size_t kMaxPorts = 64;
  const auto entries = base::list_dir(kPorts, kMaxPorts);
  if (!entries.ok()) {
    return std::nullopt;  // the class appears with the driver
  }
  for (const std::string& entry : *entries) {
    const auto text = base::read_file(std::string(kPorts) + "/" + entry + "/name", 256);
    if (text.ok() && *text == std::string(name) + "\n") {
      return "/dev/" + entry;
    }
  }
  return std::nullopt;
}

}  // namespace

base::Result<PortFinder> PortFinder::create() {
  base::UniqueFd events(::socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT));
  if (!events) {
    return Error::from_errno("socket for kernel events");
  }
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  address.nl_groups = 1;
  if (::bind(events.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return Error::from_errno("bind to kernel events");
  }
  return PortFinder(std::move(events));
}

base::Result<base::UniqueFd> PortFinder::open(std::string_view name, base::Deadline deadline) {
  while (true) {
    if (const auto device = find_device(name)) {
      return base::open_file(*device, O_RDWR | O_NONBLOCK);
    }
    if (!CR_TRY(base::wait_readable(events_.get(), deadline))) {
      return Error(Errc::kDeadlineExceeded, "find port " + std::string(name) + ": not there");
    }
    // What happened does not matter, only that something did.
    std::array<char, 4096> event{};
    while (::recv(events_.get(), event.data(), event.size(), 0) > 0) {
    }
  }
}

}  // namespace cellrund::guest
