#include "netpolicy/netns.hpp"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/statfs.h>

#include <cerrno>

#include "base/file.hpp"

namespace cellrund::netpolicy {

using base::Errc;
using base::Error;

base::Status enter_netns(int netns_fd) {
  if (::setns(netns_fd, CLONE_NEWNET) != 0) {
    return Error::from_errno("enter network namespace: setns");
  }
  return base::ok();
}

base::Result<base::UniqueFd> open_netns(const std::string& path) {
  base::UniqueFd fd = CR_TRY(base::open_file(path, O_RDONLY | O_NOFOLLOW));
  struct statfs fs {};
  if (::fstatfs(fd.get(), &fs) != 0) {
    return Error::from_errno("statfs " + path);
  }
  if (fs.f_type != NSFS_MAGIC || ::ioctl(fd.get(), NS_GET_NSTYPE) != CLONE_NEWNET) {
    return Error(Errc::kFailedPrecondition, path + " is no network namespace");
  }
  return fd;
}

base::Result<base::UniqueFd> new_netns_here() {
  if (::unshare(CLONE_NEWNET) != 0) {
    return Error::from_errno("create network namespace: unshare");
  }
  return base::open_file("/proc/thread-self/ns/net", O_RDONLY);
}

base::Result<std::uint64_t> netns_cookie_here() {
  const base::UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  std::uint64_t cookie = 0;
  socklen_t size = sizeof cookie;
  constexpr int kNetnsCookie = 71;  // asm-generic/socket.h
  if (!socket || ::getsockopt(socket.get(), SOL_SOCKET, kNetnsCookie, &cookie, &size) != 0) {
    return Error::from_errno("read the network namespace's cookie");
  }
  return cookie;
}

base::Status bind_netns(int netns_fd, const std::string& path) {
  (void)CR_TRY(base::open_file(path, O_RDONLY | O_CREAT | O_EXCL, 0400));
  const std::string source = "/proc/self/fd/" + std::to_string(netns_fd);
  if (::mount(source.c_str(), path.c_str(), nullptr, MS_BIND, nullptr) != 0) {
    return Error::from_errno("bind network namespace to " + path);
  }
  return base::ok();
}

base::Status remove_netns(const std::string& path) {
  // EINVAL: not a mount point. A crash between open and mount, or between umount and unlink, leaves a plain file.
  if (::umount2(path.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) != 0 && errno != EINVAL && errno != ENOENT) {
    return Error::from_errno("unmount " + path);
  }
  return base::remove_file(path);
}

base::Result<std::string> net_sysctl(const std::string& name) {
  constexpr std::size_t kMost = 64;
  std::string value = CR_TRY(base::read_file("/proc/sys/net/" + name, kMost));
  if (value.ends_with('\n')) {
    value.pop_back();
  }
  return value;
}

base::Status set_net_sysctl(const std::string& name, const std::string& value) {
  auto status = base::write_kernel_file("/proc/sys/net/" + name, value);
  if (!status.ok() && status.error().os_errno() == ENOENT && name.starts_with("ipv6/")) {
    return base::ok();
  }
  return status;
}

}  // namespace cellrund::netpolicy
