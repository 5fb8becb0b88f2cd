#include "residue/namespace_visit.hpp"

#include <sched.h>
#include <sys/socket.h>

#include <cerrno>
#include <system_error>
#include <thread>

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

namespace cellrund::residue {

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
  CR_CHECK(in_network_namespace(netns_fd, [&] {
    const base::UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    std::uint64_t value = 0;
    socklen_t size = sizeof value;
    if (!socket || ::getsockopt(socket.get(), SOL_SOCKET, SO_NETNS_COOKIE, &value, &size) != 0) {
      cookie = base::Error::from_errno("read the cookie of a network namespace");
    } else {
      cookie = value;
    }
  }));
  return cookie;
}

}  // namespace cellrund::residue
