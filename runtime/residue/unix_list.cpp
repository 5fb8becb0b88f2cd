#include "residue/unix_list.hpp"

#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/fd.hpp"

namespace cellrund::residue {
namespace {

constexpr std::size_t kMaxSockets = 1UL << 20U;
constexpr std::uint32_t kMinorBits = 20;  // of the kernel's own dev_t (linux/kdev_t.h)

// One SOCK_DIAG_BY_FAMILY message; unnamed sockets are left out.
void take_socket(const char* payload, std::size_t length, std::vector<UnixSocket>& out) {
  unix_diag_msg message{};
  if (length < sizeof message) {
    return;
  }
  std::memcpy(&message, payload, sizeof message);
  UnixSocket socket;
  socket.inode = message.udiag_ino;
  for (std::size_t at = NLMSG_ALIGN(sizeof message); at + sizeof(nlattr) <= length;) {
    nlattr attribute{};
    std::memcpy(&attribute, payload + at, sizeof attribute);
    if (attribute.nla_len < sizeof attribute || at + attribute.nla_len > length) {
      break;
    }
    const char* value = payload + at + NLA_HDRLEN;
    const std::size_t size = attribute.nla_len - NLA_HDRLEN;
    std::uint32_t uid = 0;
    unix_diag_vfs vfs{};
    if (attribute.nla_type == UNIX_DIAG_NAME && size > 0) {
      socket.name.assign(value, size);
    } else if (attribute.nla_type == UNIX_DIAG_UID && size == sizeof uid) {
      std::memcpy(&uid, value, sizeof uid);
      socket.uid = uid;
    } else if (attribute.nla_type == UNIX_DIAG_VFS && size == sizeof vfs) {
      std::memcpy(&vfs, value, sizeof vfs);
      socket.file = base::FileId{
          ::makedev(vfs.udiag_vfs_dev >> kMinorBits, vfs.udiag_vfs_dev & ((1U << kMinorBits) - 1)), vfs.udiag_vfs_ino};
    }
    at += NLA_ALIGN(attribute.nla_len);
  }
  if (socket.name.empty()) {
    return;
  }
  if (socket.name.front() == '\0') {
    socket.name.front() = '@';
  } else {
    socket.name.resize(socket.name.find('\0') == std::string::npos ? socket.name.size() : socket.name.find('\0'));
  }
  out.push_back(std::move(socket));
}

// True at the end of the dump.
base::Result<bool> take_messages(const char* data, std::size_t size, std::vector<UnixSocket>& out) {
  while (size >= sizeof(nlmsghdr)) {
    nlmsghdr header{};
    std::memcpy(&header, data, sizeof header);
    if (header.nlmsg_len < sizeof header || header.nlmsg_len > size) {
      return base::Error(base::Errc::kDataLoss, "netlink message of a wrong length");
    }
    if (header.nlmsg_type == NLMSG_DONE) {
      return true;
    }
    if (header.nlmsg_type == NLMSG_ERROR) {
      nlmsgerr error{};
      std::memcpy(&error, data + NLMSG_HDRLEN, std::min<std::size_t>(sizeof error, size - NLMSG_HDRLEN));
      return base::Error::from_errno("list Unix sockets: sock_diag", -error.error);
    }
    take_socket(data + NLMSG_HDRLEN, header.nlmsg_len - NLMSG_HDRLEN, out);
    if (out.size() > kMaxSockets) {
      return base::Error(base::Errc::kResourceExhausted, "more Unix sockets than can be looked at");
    }
    const std::size_t step = NLMSG_ALIGN(header.nlmsg_len);
    if (step >= size) {
      break;
    }
    data += step;
    size -= step;
  }
  return false;
}

}  // namespace

base::Result<std::vector<UnixSocket>> list_unix_sockets(base::Deadline deadline) {
  const base::UniqueFd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
  if (!socket) {
    return base::Error::from_errno("list Unix sockets: open a sock_diag socket");
  }
  struct {
    nlmsghdr header;
    unix_diag_req body;
  } request{};
  request.header.nlmsg_len = sizeof request;
  request.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  request.body.sdiag_family = AF_UNIX;
  request.body.udiag_states = ~0U;
  request.body.udiag_show = UDIAG_SHOW_NAME | UDIAG_SHOW_VFS | UDIAG_SHOW_UID;
  if (::send(socket.get(), &request, sizeof request, 0) < 0) {
    return base::Error::from_errno("list Unix sockets: send");
  }
  std::vector<UnixSocket> sockets;
  std::vector<char> buffer(64UL * 1024);
  for (;;) {
    if (!CR_TRY(base::wait_readable(socket.get(), deadline))) {
      return base::Error(base::Errc::kDeadlineExceeded, "list Unix sockets: no answer in time");
    }
    const ssize_t n = ::recv(socket.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (n < 0) {
      if (errno == EINTR || errno == EAGAIN) {
        continue;
      }
      return base::Error::from_errno("list Unix sockets: recv");
    }
    if (CR_TRY(take_messages(buffer.data(), static_cast<std::size_t>(n), sockets))) {
      return sockets;
    }
  }
}

}  // namespace cellrund::residue
