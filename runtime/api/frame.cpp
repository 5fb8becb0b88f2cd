#include "api/frame.hpp"

#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <span>

namespace cellrund::api {
namespace {

using base::Errc;
using base::Error;

constexpr std::size_t kHeaderBytes = 4;

// How many bytes came: 0 at the end of the stream.
base::Result<std::size_t> receive_some(int fd, std::span<char> out, base::Deadline deadline) {
  for (;;) {
    iovec chunk{out.data(), out.size()};
    msghdr message{};
    message.msg_iov = &chunk;
    message.msg_iovlen = 1;
    const ssize_t n = ::recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n >= 0) {
      // Without a control buffer the kernel drops passed descriptors and says so (unix(7), recvmsg(2): MSG_CTRUNC).
      if ((message.msg_flags & MSG_CTRUNC) != 0) {
        return Error(Errc::kPermissionDenied, "the peer passed a descriptor");
      }
      return static_cast<std::size_t>(n);
    }
    if (errno == EINTR) {
      continue;
    }
    if (errno != EAGAIN && errno != EWOULDBLOCK) {
      return Error::from_errno("receive");
    }
    pollfd ready{fd, POLLIN, 0};
    const int count = ::poll(&ready, 1, deadline.poll_timeout_ms());
    if (count == 0) {
      return Error(Errc::kDeadlineExceeded, "the peer sent nothing in time");
    }
    if (count < 0 && errno != EINTR) {
      return Error::from_errno("poll");
    }
  }
}

base::Status receive_exact(int fd, std::span<char> out, base::Deadline deadline) {
  while (!out.empty()) {
    const std::size_t n = CR_TRY(receive_some(fd, out, deadline));
    if (n == 0) {
      return Error(Errc::kUnavailable, "the peer closed the connection inside a frame");
    }
    out = out.subspan(n);
    if (deadline.expired() && !out.empty()) {  // bytes that trickle in never let poll(2) time out
      return Error(Errc::kDeadlineExceeded, "the peer did not finish a frame in time");
    }
  }
  return base::ok();
}

}  // namespace

base::Result<std::optional<std::string>> read_frame(int fd, std::size_t limit, base::Nanoseconds idle,
                                                    base::Nanoseconds whole) {
  std::array<char, kHeaderBytes> header{};
  const std::size_t first = CR_TRY(receive_some(fd, header, base::Deadline::after(idle)));
  if (first == 0) {
    return std::optional<std::string>();
  }
  const base::Deadline deadline = base::Deadline::after(whole);
  CR_CHECK(receive_exact(fd, std::span(header).subspan(first), deadline));
  std::size_t length = 0;
  for (const char byte : header) {
    length = (length << 8U) | static_cast<unsigned char>(byte);
  }
  if (length > limit) {
    return Error(Errc::kResourceExhausted,
                 "a frame of " + std::to_string(length) + " bytes is above the limit of " + std::to_string(limit));
  }
  // Grown as the bytes come, so that a claim of a megabyte costs the reader only what was really sent.
  constexpr std::size_t kStep = 64UL * 1024;
  std::string body;
  while (body.size() < length) {
    const std::size_t have = body.size();
    body.resize(std::min(length, have + kStep));
    CR_CHECK(receive_exact(fd, std::span(body).subspan(have), deadline));
  }
  return std::optional<std::string>(std::move(body));
}

base::Status write_frame(int fd, std::string_view body, base::Deadline deadline) {
  if (body.size() > UINT32_MAX) {
    return Error(Errc::kInvalidArgument, "frame too long");
  }
  const auto length = static_cast<std::uint32_t>(body.size());
  std::array<char, kHeaderBytes> header{static_cast<char>(length >> 24U), static_cast<char>(length >> 16U),
                                        static_cast<char>(length >> 8U), static_cast<char>(length)};
  std::array<iovec, 2> chunks{{{header.data(), header.size()}, {const_cast<char*>(body.data()), body.size()}}};
  std::size_t at = 0;
  while (at < chunks.size()) {
    msghdr message{};
    message.msg_iov = &chunks[at];
    message.msg_iovlen = chunks.size() - at;
    const ssize_t n = ::sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0) {
      if (errno == EINTR) {
        continue;
      }
      if (errno != EAGAIN && errno != EWOULDBLOCK) {
        return Error::from_errno("send");
      }
      pollfd ready{fd, POLLOUT, 0};
      const int count = ::poll(&ready, 1, deadline.poll_timeout_ms());
      if (count < 0 && errno != EINTR) {
        return Error::from_errno("poll");
      }
      if (count == 0 || deadline.expired()) {
        return Error(Errc::kDeadlineExceeded, "the peer did not take a frame in time");
      }
      continue;
    }
    auto sent = static_cast<std::size_t>(n);
    while (at < chunks.size() && sent >= chunks[at].iov_len) {
      sent -= chunks[at].iov_len;
      ++at;
    }
    if (at < chunks.size()) {
      chunks[at].iov_base = static_cast<char*>(chunks[at].iov_base) + sent;
      chunks[at].iov_len -= sent;
    }
    if (at < chunks.size() && deadline.expired()) {
      return Error(Errc::kDeadlineExceeded, "the peer did not take a frame in time");
    }
  }
  return base::ok();
}

}  // namespace cellrund::api
