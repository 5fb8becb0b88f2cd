// By ioctl (netdevice(7), arp(7), rtentry in net/route.h): old, but a tenth of the code that netlink would be, and
// there is one interface with one address to set.
#include "shim/guest/network.hpp"

#include <arpa/inet.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <net/route.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/fd.hpp"

namespace cellrund::guest {
namespace {

using base::Error;
using Ipv4 = std::array<std::uint8_t, 4>;
using Mac = std::array<std::uint8_t, 6>;

base::Result<base::UniqueFd> control_socket() {
  base::UniqueFd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd) {
    return Error::from_errno("socket");
  }
  return fd;
}

ifreq request_for(const std::string& interface) {
  ifreq request{};
  (void)interface.copy(request.ifr_name, IFNAMSIZ - 1);
  return request;
}

void put_address(sockaddr& into, const Ipv4& address) {
  sockaddr_in in{};
  in.sin_family = AF_INET;
  std::memcpy(&in.sin_addr, address.data(), address.size());
  std::memcpy(&into, &in, sizeof(in));
}

base::Status set_up(int fd, const std::string& interface) {
  ifreq request = request_for(interface);
  if (::ioctl(fd, SIOCGIFFLAGS, &request) != 0) {
    return Error::from_errno("network: " + interface + ": read flags");
  }
  request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
  if (::ioctl(fd, SIOCSIFFLAGS, &request) != 0) {
    return Error::from_errno("network: " + interface + ": bring up");
  }
  return base::ok();
}

base::Status set_mac(int fd, const std::string& interface, const Mac& mac) {
  ifreq request = request_for(interface);
  if (::ioctl(fd, SIOCGIFHWADDR, &request) != 0) {
    return Error::from_errno("network: " + interface + ": read MAC");
  }
  if (std::memcmp(request.ifr_hwaddr.sa_data, mac.data(), mac.size()) == 0) {
    return base::ok();
  }
  request.ifr_hwaddr.sa_family = ARPHRD_ETHER;
  std::memcpy(request.ifr_hwaddr.sa_data, mac.data(), mac.size());
  if (::ioctl(fd, SIOCSIFHWADDR, &request) != 0) {
    return Error::from_errno("network: " + interface + ": set MAC");
  }
  return base::ok();
}

base::Status set_address(int fd, const wire::NetworkConfig& config) {
  ifreq request = request_for(config.interface);
  request.ifr_mtu = static_cast<int>(config.mtu);
  if (::ioctl(fd, SIOCSIFMTU, &request) != 0) {
    return Error::from_errno("network: " + config.interface + ": set MTU");
  }
  request = request_for(config.interface);
  put_address(request.ifr_addr, config.address);
  if (::ioctl(fd, SIOCSIFADDR, &request) != 0) {
    return Error::from_errno("network: " + config.interface + ": set address");
  }
  const std::uint32_t mask = htonl(~0U << (32U - config.prefix));  // prefix is 1 to 32
  Ipv4 mask_bytes{};
  std::memcpy(mask_bytes.data(), &mask, mask_bytes.size());
  request = request_for(config.interface);
  put_address(request.ifr_netmask, mask_bytes);
  if (::ioctl(fd, SIOCSIFNETMASK, &request) != 0) {
    return Error::from_errno("network: " + config.interface + ": set netmask");
  }
  if (config.prefix >= 31) {
    // The kernel gave the address a broadcast address of its class, and such a network has none (RFC 3021).
    request = request_for(config.interface);
    put_address(request.ifr_broadaddr, Ipv4{});
    if (::ioctl(fd, SIOCSIFBRDADDR, &request) != 0) {
      return Error::from_errno("network: " + config.interface + ": clear broadcast address");
    }
  }
  return base::ok();
}

base::Status add_neighbour(int fd, const wire::NetworkConfig& config) {
  arpreq request{};
  put_address(request.arp_pa, config.gateway);
  request.arp_ha.sa_family = ARPHRD_ETHER;
  std::memcpy(request.arp_ha.sa_data, config.gateway_mac.data(), config.gateway_mac.size());
  request.arp_flags = ATF_PERM | ATF_COM;
  (void)config.interface.copy(request.arp_dev, sizeof(request.arp_dev) - 1);
  if (::ioctl(fd, SIOCSARP, &request) != 0) {
    return Error::from_errno("network: add gateway neighbour");
  }
  return base::ok();
}

base::Status add_default_route(int fd, const wire::NetworkConfig& config) {
  std::string device = config.interface;
  rtentry route{};
  route.rt_dev = device.data();
  // A gateway outside the prefix (a /32 address) is first made known to be on this link.
  route.rt_flags = RTF_UP | RTF_HOST;
  put_address(route.rt_dst, config.gateway);
  put_address(route.rt_genmask, Ipv4{255, 255, 255, 255});
  if (::ioctl(fd, SIOCADDRT, &route) != 0 && errno != EEXIST) {
    return Error::from_errno("network: add route to gateway");
  }
  route = rtentry{};
  route.rt_dev = device.data();
  route.rt_flags = RTF_UP | RTF_GATEWAY;
  put_address(route.rt_dst, Ipv4{});
  put_address(route.rt_genmask, Ipv4{});
  put_address(route.rt_gateway, config.gateway);
  if (::ioctl(fd, SIOCADDRT, &route) != 0 && errno != EEXIST) {
    return Error::from_errno("network: add default route");
  }
  return base::ok();
}

}  // namespace

base::Status bring_up_loopback() {
  const base::UniqueFd fd = CR_TRY(control_socket());
  return set_up(fd.get(), "lo");
}

base::Status configure_network(const wire::NetworkConfig& config) {
  const base::UniqueFd fd = CR_TRY(control_socket());
  if (config.mac != Mac{}) {
    CR_CHECK(set_mac(fd.get(), config.interface, config.mac));
  }
  CR_CHECK(set_address(fd.get(), config));
  CR_CHECK(set_up(fd.get(), config.interface));
  if (config.gateway == Ipv4{}) {
    return base::ok();
  }
  if (config.gateway_mac != Mac{}) {
    CR_CHECK(add_neighbour(fd.get(), config));
  }
  return add_default_route(fd.get(), config);
}

}  // namespace cellrund::guest
