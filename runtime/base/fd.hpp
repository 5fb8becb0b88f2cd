// UniqueFd: sole owner of one file descriptor.
#pragma once

#include <utility>

#include "base/result.hpp"

namespace cellrund::base {

class UniqueFd {
 public:
  UniqueFd() noexcept = default;
  explicit UniqueFd(int fd) noexcept : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) {
      reset(std::exchange(other.fd_, -1));
    }
    return *this;
  }
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;
  ~UniqueFd() { reset(); }

  [[nodiscard]] int get() const noexcept { return fd_; }
  [[nodiscard]] bool valid() const noexcept { return fd_ >= 0; }
  explicit operator bool() const noexcept { return valid(); }
  [[nodiscard]] int release() noexcept { return std::exchange(fd_, -1); }
  // Closes once and never retries: on Linux the descriptor is gone even after EINTR (close(2)).
  void reset(int fd = -1) noexcept;

 private:
  int fd_ = -1;
};

struct Pipe {
  UniqueFd read;
  UniqueFd write;
};

// pipe2(O_CLOEXEC | extra_flags).
Result<Pipe> make_pipe(int extra_flags = 0);

struct SocketPair {
  UniqueFd ours;
  UniqueFd theirs;
};

// socketpair(AF_UNIX, type | SOCK_CLOEXEC).
Result<SocketPair> make_socket_pair(int type);

// F_SETFD: whether the descriptor survives exec.
Status set_inherit(int fd, bool inherit);
Status set_nonblocking(int fd, bool nonblocking);

}  // namespace cellrund::base
