#include "shim/tap.hpp"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>

#include "base/file.hpp"
#include "base/process.hpp"
#include "shim/traffic_redirect.hpp"

namespace cellrund::shim {
namespace {

using base::Errc;
using base::Error;
using base::Result;
using base::Status;

constexpr const char* kTap = "tap0";
constexpr const char* kUplink = "eth0";
constexpr std::chrono::seconds kBudget(5);

ifreq request_for(const char* name) noexcept {
  ifreq request{};
  std::strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  return request;
}

Result<base::UniqueFd> open_tap() {
  base::UniqueFd tap = CR_TRY(base::open_file("/dev/net/tun", O_RDWR | O_NONBLOCK));
  ifreq request = request_for(kTap);
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  if (::ioctl(tap.get(), TUNSETIFF, &request) != 0) {
    return Error::from_errno("TUNSETIFF");
  }
  return tap;
}

Status bring_up_like(const char* device, const char* model) {
  const base::UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket) {
    return Error::from_errno("socket");
  }
  ifreq mtu = request_for(model);
  if (::ioctl(socket.get(), SIOCGIFMTU, &mtu) != 0) {
    return Error::from_errno(std::string("MTU of ") + model);
  }
  std::strncpy(mtu.ifr_name, device, IFNAMSIZ - 1);
  if (::ioctl(socket.get(), SIOCSIFMTU, &mtu) != 0) {
    return Error::from_errno(std::string("set MTU of ") + device);
  }
  ifreq flags = request_for(device);
  flags.ifr_flags = IFF_UP | IFF_NOARP;  // the namespace's own stack has no business on this device
  if (::ioctl(socket.get(), SIOCSIFFLAGS, &flags) != 0) {
    return Error::from_errno(std::string("bring up ") + device);
  }
  return base::ok();
}

// In the child.
Result<base::UniqueFd> make_in(int netns_fd) {
  if (::setns(netns_fd, CLONE_NEWNET) != 0) {
    return Error::from_errno("setns");
  }
  base::UniqueFd tap = CR_TRY(open_tap());
  const std::string ipv6 = std::string("/proc/sys/net/ipv6/conf/") + kTap + "/disable_ipv6";
  if (base::exists(ipv6)) {
    CR_CHECK(base::write_kernel_file(ipv6, "1"));
  }
  const unsigned tap_index = ::if_nametoindex(kTap);
  const unsigned uplink_index = ::if_nametoindex(kUplink);
  if (tap_index == 0 || uplink_index == 0) {
    return Error::from_errno(std::string("find ") + (tap_index == 0 ? kTap : kUplink));
  }
  CR_CHECK(redirect_both_ways(tap_index, uplink_index));
  CR_CHECK(bring_up_like(kTap, kUplink));
  return tap;
}

// One message: the descriptor, or the text of an error (unix(7), SCM_RIGHTS).
void send_result(int socket, const Result<base::UniqueFd>& result) noexcept {
  std::string text = result.ok() ? "ok" : result.error().message().substr(0, 400);
  iovec part{text.data(), text.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  if (result.ok()) {
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    const int fd = result->get();
    std::memcpy(CMSG_DATA(header), &fd, sizeof(fd));
  }
  (void)!::sendmsg(socket, &message, MSG_NOSIGNAL);  // a parent that is gone needs no answer
}

Result<base::UniqueFd> receive_result(int socket) {
  if (!CR_TRY(base::wait_readable(socket, base::Deadline::after(kBudget)))) {
    return Error(Errc::kDeadlineExceeded, "the helper did not answer in time");
  }
  std::array<char, 512> text{};
  iovec part{text.data(), text.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const ssize_t n = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  if (n <= 0) {
    return Error(Errc::kUnavailable, "the helper died");
  }
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (header == nullptr || header->cmsg_type != SCM_RIGHTS) {
    return Error(Errc::kUnknown, std::string(text.data(), static_cast<std::size_t>(n)));
  }
  int fd = -1;
  std::memcpy(&fd, CMSG_DATA(header), sizeof(fd));
  return base::UniqueFd(fd);
}

}  // namespace

Result<base::UniqueFd> make_tap(int netns_fd) {
  base::SocketPair channel = CR_TRY(base::make_socket_pair(SOCK_SEQPACKET));
  const pid_t pid = ::fork();
  if (pid < 0) {
    return Error::from_errno("fork");
  }
  if (pid == 0) {
    send_result(channel.theirs.get(), make_in(netns_fd));
    ::_exit(0);
  }
  channel.theirs.reset();
  Result<base::UniqueFd> tap = receive_result(channel.ours.get());
  // It has answered or is late: either way nothing is lost by ending it. Our unreaped child cannot be another process.
  (void)::kill(pid, SIGKILL);
  (void)::waitpid(pid, nullptr, 0);
  return std::move(tap).context("make the tap device");
}

}  // namespace cellrund::shim
