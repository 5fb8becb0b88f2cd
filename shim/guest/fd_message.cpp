#include "shim/guest/fd_message.hpp"

#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace cellrund::guest {
namespace {

using base::Error;

constexpr std::size_t kMaxFds = 3;

struct Control {
  alignas(cmsghdr) std::array<std::uint8_t, CMSG_SPACE(kMaxFds * sizeof(int))> bytes{};
};

}  // namespace

base::Status send_message(int socket, base::BytesView data, std::initializer_list<int> fds) {
  std::vector<int> open;
  for (const int fd : fds) {
    if (fd >= 0) {
      open.push_back(fd);
    }
  }
  CR_ASSERT(open.size() <= kMaxFds);
  iovec part{const_cast<std::uint8_t*>(data.data()), data.size()};  // sendmsg(2) only reads it
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  Control control;
  if (!open.empty()) {
    header.msg_control = control.bytes.data();
    header.msg_controllen = CMSG_SPACE(open.size() * sizeof(int));
    cmsghdr* const rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(open.size() * sizeof(int));
    std::memcpy(CMSG_DATA(rights), open.data(), open.size() * sizeof(int));
  }
  if (::sendmsg(socket, &header, MSG_NOSIGNAL) < 0) {
    return Error::from_errno("sendmsg");
  }
  return base::ok();
}

base::Result<std::optional<Message>> receive_message(int socket, std::span<std::uint8_t> buffer) {
  iovec part{buffer.data(), buffer.size()};
  Control control;
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control.bytes.data();
  header.msg_controllen = control.bytes.size();
  const ssize_t n = ::recvmsg(socket, &header, MSG_CMSG_CLOEXEC);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
    return std::optional<Message>{};
  }
  if (n < 0 && errno != ECONNRESET) {
    return Error::from_errno("recvmsg");
  }
  Message message;
  message.data = base::BytesView(buffer.data(), static_cast<std::size_t>(std::max<ssize_t>(n, 0)));
  for (cmsghdr* part_of = n < 0 ? nullptr : CMSG_FIRSTHDR(&header); part_of != nullptr; part_of = CMSG_NXTHDR(&header, part_of)) {
    if (part_of->cmsg_level != SOL_SOCKET || part_of->cmsg_type != SCM_RIGHTS) {
      continue;
    }
    std::array<int, kMaxFds> fds{};
    const std::size_t count = (part_of->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    std::memcpy(fds.data(), CMSG_DATA(part_of), count * sizeof(int));  // no more than the buffer had room for
    for (std::size_t i = 0; i < count; ++i) {
      message.fds.emplace_back(fds[i]);
    }
  }
  if ((header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
    return Error(base::Errc::kDataLoss, "recvmsg: the datagram does not fit");
  }
  return std::optional<Message>(std::move(message));
}

}  // namespace cellrund::guest
