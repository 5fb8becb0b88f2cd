#include "residue/namespace_visit.hpp"

#include <fcntl.h>
#include <sched.h>
#include <linux/nsfs.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <thread>

#include "base/file.hpp"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

namespace cellrund::residue {
namespace {

constexpr int kNsfsHandleType = 0xf1;  // FILEID_NSFS, include/linux/exportfs.h
struct NsfsHandle {                    // include/uapi/linux/nsfs.h
  std::uint64_t id = 0;
  std::uint32_t type = CLONE_NEWNET;
  std::uint32_t inode = 0;
};
// struct file_handle with room for the flexible part.
struct Handle {
  alignas(file_handle) std::array<char, sizeof(file_handle) + sizeof(NsfsHandle)> bytes{};
  [[nodiscard]] file_handle* get() noexcept { return reinterpret_cast<file_handle*>(bytes.data()); }
};

// One socket option of the thread's own namespace.
base::Result<std::uint64_t> cookie_here() {
  const base::UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  std::uint64_t value = 0;
  socklen_t size = sizeof value;
  if (!socket || ::getsockopt(socket.get(), SOL_SOCKET, SO_NETNS_COOKIE, &value, &size) != 0) {
    return base::Error::from_errno("read the cookie of a network namespace");
  }
  return value;
}

// The kernel's own handle of our namespace must look as expected, so that a changed layout is never read as "gone".
bool handles_are_understood(int own_fd) {
  Handle handle;
  handle.get()->handle_bytes = sizeof(NsfsHandle);
  int mount_id = 0;
  if (::name_to_handle_at(own_fd, "", handle.get(), &mount_id, AT_EMPTY_PATH) != 0 ||
      handle.get()->handle_type != kNsfsHandleType || handle.get()->handle_bytes != sizeof(NsfsHandle)) {
    return false;
  }
  NsfsHandle own;
  std::memcpy(&own, handle.get()->f_handle, sizeof own);
  const auto cookie = cookie_here();
  const auto id = base::file_id(own_fd);
  return cookie.ok() && id.ok() && own.type == CLONE_NEWNET && own.id == *cookie && own.inode == id->ino;
}

}  // namespace

base::Status in_network_namespace(int netns_fd, const std::function<void()>& job) {
  int err = 0;
  try {
    std::thread visitor([&] {
      if (::setns(netns_fd, CLONE_NEWNET) != 0) {
        err = errno;
        return;
      }
      job();
    });
    visitor.join();
  } catch (const std::system_error& error) {  // no more threads
    return base::Error::from_errno("start a thread", error.code().value());
  }
  if (err != 0) {
    return base::Error::from_errno("setns", err);
  }
  return base::ok();
}

base::Result<std::uint64_t> network_cookie(int netns_fd) {
  base::Result<std::uint64_t> cookie = std::uint64_t{0};
  CR_CHECK(in_network_namespace(netns_fd, [&] { cookie = cookie_here(); }));
  return cookie;
}

bool owned_by_root(int namespace_fd) {
  const base::UniqueFd owner(::ioctl(namespace_fd, NS_GET_USERNS));  // ioctl_ns(2): O_CLOEXEC; EPERM: one above ours
  if (!owner) {
    return true;
  }
  const auto theirs = base::file_id(owner.get());
  const auto ours = base::file_id("/proc/self/ns/user");
  return !theirs.ok() || !ours.ok() || *theirs == *ours;
}

Existence network_namespace_existence(std::uint64_t inode, std::uint64_t cookie) {
  const auto own = base::open_file("/proc/thread-self/ns/net", O_RDONLY);
  if (!own.ok() || inode > UINT32_MAX || cookie == 0 || !handles_are_understood(own->get())) {
    return Existence::kNotTold;
  }
  const NsfsHandle wanted{cookie, CLONE_NEWNET, static_cast<std::uint32_t>(inode)};
  Handle handle;
  handle.get()->handle_bytes = sizeof wanted;
  handle.get()->handle_type = kNsfsHandleType;
  std::memcpy(handle.get()->f_handle, &wanted, sizeof wanted);
  const base::UniqueFd fd(::open_by_handle_at(own->get(), handle.get(), O_RDONLY | O_CLOEXEC));
  if (fd) {
    return Existence::kExists;
  }
  return errno == ESTALE ? Existence::kGone : Existence::kNotTold;
}

}  // namespace cellrund::residue
