#include "tools/bench/raw_boot/tap.hpp"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <string_view>

#include "base/file.hpp"

namespace cellrund::bench {
namespace {

using base::Error;

constexpr std::string_view kName = "tap0";

ifreq request() noexcept {
  ifreq out{};
  std::copy(kName.begin(), kName.end(), out.ifr_name);
  return out;
}

}  // namespace

base::Result<base::UniqueFd> make_lone_tap() {
  // As in a cell's namespace: the host's own stack says nothing to the guest.
  const std::string ipv6 = "/proc/sys/net/ipv6/conf/default/disable_ipv6";
  if (base::exists(ipv6)) {
    CR_CHECK(base::write_kernel_file(ipv6, "1"));
  }
  base::UniqueFd tap = CR_TRY(base::open_file("/dev/net/tun", O_RDWR | O_NONBLOCK));
  ifreq make = request();
  make.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  if (::ioctl(tap.get(), TUNSETIFF, &make) != 0) {
    return Error::from_errno("TUNSETIFF");
  }
  const base::UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq up = request();
  up.ifr_flags = IFF_UP | IFF_NOARP;
  if (!socket || ::ioctl(socket.get(), SIOCSIFFLAGS, &up) != 0) {
    return Error::from_errno("bring up the tap device");
  }
  return tap;
}

}  // namespace cellrund::bench
