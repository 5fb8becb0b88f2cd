#include "base/fd.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>

namespace cellrund::base {

void UniqueFd::reset(int fd) noexcept {
  if (fd_ >= 0 && fd_ != fd) {
    (void)::close(fd_);
  }
  fd_ = fd;
}

Result<Pipe> make_pipe(int extra_flags) {
  std::array<int, 2> fds{};
  if (::pipe2(fds.data(), O_CLOEXEC | extra_flags) != 0) {
    return Error::from_errno("pipe2");
  }
  return Pipe{UniqueFd(fds[0]), UniqueFd(fds[1])};
}

Result<SocketPair> make_socket_pair(int type) {
  std::array<int, 2> fds{};
  if (::socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds.data()) != 0) {
    return Error::from_errno("socketpair");
  }
  return SocketPair{UniqueFd(fds[0]), UniqueFd(fds[1])};
}

Status set_inherit(int fd, bool inherit) {
  const int flags = ::fcntl(fd, F_GETFD);
  if (flags < 0) {
    return Error::from_errno("fcntl F_GETFD");
  }
  const int wanted = inherit ? flags & ~FD_CLOEXEC : flags | FD_CLOEXEC;
  if (::fcntl(fd, F_SETFD, wanted) != 0) {
    return Error::from_errno("fcntl F_SETFD");
  }
  return ok();
}

Status set_nonblocking(int fd, bool nonblocking) {
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0) {
    return Error::from_errno("fcntl F_GETFL");
  }
  const int wanted = nonblocking ? flags | O_NONBLOCK : flags & ~O_NONBLOCK;
  if (::fcntl(fd, F_SETFL, wanted) != 0) {
    return Error::from_errno("fcntl F_SETFL");
  }
  return ok();
}

}  // namespace cellrund::base
