#include "residue/link_list.hpp"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "base/file.hpp"

namespace cellrund::residue {
namespace {

constexpr std::size_t kMaxLinks = 1UL << 18U;
constexpr int kMaxInterrupted = 8;

struct Dump {
  std::vector<Link> links;
  bool done = false;
  bool interrupted = false;
};

// IFLA_IFNAME of one RTM_NEWLINK message.
void take_link(const nlmsghdr& header, const char* payload, std::size_t length, Dump& dump) {
  ifinfomsg info{};
  if (header.nlmsg_type != RTM_NEWLINK || length < sizeof info) {
    return;
  }
  std::memcpy(&info, payload, sizeof info);
  Link link{static_cast<std::uint32_t>(info.ifi_index), {}};
  for (std::size_t at = NLMSG_ALIGN(sizeof info); at + sizeof(rtattr) <= length;) {
    rtattr attribute{};
    std::memcpy(&attribute, payload + at, sizeof attribute);
    if (attribute.rta_len < sizeof attribute || at + attribute.rta_len > length) {
      break;
    }
    if (attribute.rta_type == IFLA_IFNAME) {
      const char* text = payload + at + RTA_LENGTH(0);
      link.name.assign(text, ::strnlen(text, attribute.rta_len - RTA_LENGTH(0)));
    }
    at += RTA_ALIGN(attribute.rta_len);
  }
  dump.links.push_back(std::move(link));
}

base::Status take_messages(const char* data, std::size_t size, std::uint32_t sequence, Dump& dump) {
  while (size >= sizeof(nlmsghdr)) {
    nlmsghdr header{};
    std::memcpy(&header, data, sizeof header);
    if (header.nlmsg_len < sizeof header || header.nlmsg_len > size) {
      return base::Error(base::Errc::kDataLoss, "netlink message of a wrong length");
    }
    if (header.nlmsg_seq == sequence) {
      dump.interrupted = dump.interrupted || (header.nlmsg_flags & NLM_F_DUMP_INTR) != 0;
      if (header.nlmsg_type == NLMSG_DONE) {
        dump.done = true;
        return base::ok();
      }
      if (header.nlmsg_type == NLMSG_ERROR) {
        nlmsgerr error{};
        std::memcpy(&error, data + NLMSG_HDRLEN, std::min<std::size_t>(sizeof error, size - NLMSG_HDRLEN));
        return base::Error::from_errno("RTM_GETLINK", -error.error);
      }
      take_link(header, data + NLMSG_HDRLEN, header.nlmsg_len - NLMSG_HDRLEN, dump);
      if (dump.links.size() > kMaxLinks) {
        return base::Error(base::Errc::kResourceExhausted, "more links than can be looked at");
      }
    }
    const std::size_t step = NLMSG_ALIGN(header.nlmsg_len);
    if (step >= size) {
      break;
    }
    data += step;
    size -= step;
  }
  return base::ok();
}

base::Result<Dump> dump_once(int socket, std::uint32_t sequence, base::Deadline deadline) {
  struct {
    nlmsghdr header;
    ifinfomsg info;
  } request{};
  request.header.nlmsg_len = sizeof request;
  request.header.nlmsg_type = RTM_GETLINK;
  request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  request.header.nlmsg_seq = sequence;
  request.info.ifi_family = AF_UNSPEC;
  if (::send(socket, &request, sizeof request, 0) < 0) {
    return base::Error::from_errno("RTM_GETLINK: send");
  }
  Dump dump;
  std::vector<char> buffer(64UL * 1024);
  while (!dump.done) {
    if (!CR_TRY(base::wait_readable(socket, deadline))) {
      return base::Error(base::Errc::kDeadlineExceeded, "RTM_GETLINK: no answer in time");
    }
    const ssize_t n = ::recv(socket, buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (n < 0) {
      if (errno == EINTR || errno == EAGAIN) {
        continue;
      }
      return base::Error::from_errno("RTM_GETLINK: recv");
    }
    CR_CHECK(take_messages(buffer.data(), static_cast<std::size_t>(n), sequence, dump));
  }
  return dump;
}

}  // namespace

base::Result<base::UniqueFd> open_route_socket() {
  base::UniqueFd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  if (!socket) {
    return base::Error::from_errno("open a route socket");
  }
  return socket;
}

base::Result<std::vector<Link>> list_links(int route_socket, base::Deadline deadline) {
  for (std::uint32_t attempt = 1; attempt <= kMaxInterrupted; ++attempt) {
    Dump dump = CR_TRY(dump_once(route_socket, attempt, deadline));
    if (!dump.interrupted) {
      return std::move(dump.links);
    }
  }
  return base::Error(base::Errc::kUnavailable, "RTM_GETLINK: the list kept changing");
}

}  // namespace cellrund::residue
