#include "netpolicy/rtnl.hpp"

#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/netlink.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <optional>

#include "base/file.hpp"

namespace cellrund::netpolicy {
namespace {

using base::Errc;
using base::Error;

constexpr auto kKernelAnswers = std::chrono::seconds(5);
constexpr std::size_t kMaxAnswer = 4 * 1024 * 1024;  // some thousand links
constexpr std::uint32_t kBpfIdAttribute = 11;  // TCA_BPF_ID, linux/pkt_cls.h (whose other content clashes with C++)

// The kernel aligns messages and attributes to four bytes (NLMSG_ALIGNTO, RTA_ALIGNTO).
constexpr std::size_t aligned(std::size_t n) noexcept {
  return (n + 3) & ~std::size_t{3};
}

// One request, built front to back.
class Request {
 public:
  template <typename Body>
  Request(std::uint16_t type, int flags, const Body& body) {
    nlmsghdr header{};
    header.nlmsg_type = type;
    header.nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | flags);
    append(&header, sizeof header);
    append(&body, sizeof body);
  }

  void bytes(std::uint16_t type, const void* data, std::size_t size) {
    const rtattr header{static_cast<std::uint16_t>(sizeof(rtattr) + size), type};
    append(&header, sizeof header);
    append(data, size);
  }
  void text(std::uint16_t type, const std::string& value) { bytes(type, value.c_str(), value.size() + 1); }
  void number(std::uint16_t type, std::uint32_t value) { bytes(type, &value, sizeof value); }
  void mac(std::uint16_t type, const Mac& value) { bytes(type, value.data(), value.size()); }
  void address(std::uint16_t type, std::uint32_t host_order) {
    const std::array<std::uint8_t, 4> wire{
        static_cast<std::uint8_t>(host_order >> 24U), static_cast<std::uint8_t>(host_order >> 16U),
        static_cast<std::uint8_t>(host_order >> 8U), static_cast<std::uint8_t>(host_order)};
    bytes(type, wire.data(), wire.size());
  }
  // Opens an attribute that holds others (or a struct and others); close() it with what this returned.
  [[nodiscard]] std::size_t open(std::uint16_t type) {
    const std::size_t at = buffer_.size();
    const rtattr header{0, type};
    append(&header, sizeof header);
    return at;
  }
  void close(std::size_t at) {
    const auto length = static_cast<std::uint16_t>(buffer_.size() - at);
    std::memcpy(buffer_.data() + at, &length, sizeof length);
  }
  template <typename Body>
  void body(const Body& value) {
    append(&value, sizeof value);
  }

  [[nodiscard]] std::span<std::uint8_t> finish() {
    const auto length = static_cast<std::uint32_t>(buffer_.size());
    std::memcpy(buffer_.data(), &length, sizeof length);  // nlmsg_len is the first field
    return buffer_;
  }

 private:
  void append(const void* data, std::size_t size) {
    const auto* bytes = static_cast<const std::uint8_t*>(data);
    buffer_.insert(buffer_.end(), bytes, bytes + size);
    buffer_.resize(aligned(buffer_.size()));
  }
  std::vector<std::uint8_t> buffer_;
};

// Calls fn(type, payload) for each attribute of a possibly malformed list.
template <typename Fn>
void for_each_attribute(std::span<const std::uint8_t> list, Fn fn) {
  while (list.size() >= sizeof(rtattr)) {
    rtattr header{};
    std::memcpy(&header, list.data(), sizeof header);
    if (header.rta_len < sizeof header || header.rta_len > list.size()) {
      return;
    }
    fn(static_cast<std::uint16_t>(header.rta_type & ~NLA_F_NESTED),
       list.subspan(sizeof header, header.rta_len - sizeof header));
    list = list.subspan(std::min(list.size(), aligned(header.rta_len)));
  }
}

// Calls fn(header, payload) for each message.
template <typename Fn>
void for_each_message(std::span<const std::uint8_t> data, Fn fn) {
  while (data.size() >= sizeof(nlmsghdr)) {
    nlmsghdr header{};
    std::memcpy(&header, data.data(), sizeof header);
    if (header.nlmsg_len < sizeof header || header.nlmsg_len > data.size()) {
      return;
    }
    fn(header, data.subspan(sizeof header, header.nlmsg_len - sizeof header));
    data = data.subspan(std::min(data.size(), aligned(header.nlmsg_len)));
  }
}

template <typename T>
bool read_struct(std::span<const std::uint8_t> data, T& out) {
  if (data.size() < sizeof out) {
    return false;
  }
  std::memcpy(&out, data.data(), sizeof out);
  return true;
}

ifinfomsg link_message(std::uint32_t ifindex, unsigned flags = 0, unsigned change = 0) {
  ifinfomsg message{};
  message.ifi_family = AF_UNSPEC;
  message.ifi_index = static_cast<int>(ifindex);
  message.ifi_flags = flags;
  message.ifi_change = change;
  return message;
}

std::string of_link(const char* what, std::uint32_t ifindex) {
  return std::string(what) + " of link " + std::to_string(ifindex);
}

}  // namespace

base::Result<Rtnl> Rtnl::open() {
  base::UniqueFd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  if (!socket) {
    return Error::from_errno("open rtnetlink socket");
  }
  sockaddr_nl any{};
  any.nl_family = AF_NETLINK;
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&any), sizeof any) != 0) {
    return Error::from_errno("bind rtnetlink socket");
  }
  return Rtnl(std::move(socket));
}

// Sends one request and collects what is answered before its acknowledgement (or the end of its dump).
base::Result<std::vector<std::uint8_t>> Rtnl::transact(std::span<std::uint8_t> request, const std::string& what) {
  const std::uint32_t sequence = ++sequence_;
  std::memcpy(request.data() + offsetof(nlmsghdr, nlmsg_seq), &sequence, sizeof sequence);
  sockaddr_nl kernel{};
  kernel.nl_family = AF_NETLINK;
  if (::sendto(socket_.get(), request.data(), request.size(), 0, reinterpret_cast<const sockaddr*>(&kernel),
               sizeof kernel) < 0) {
    return Error::from_errno(what + ": send to rtnetlink");
  }
  sockaddr_nl own{};
  socklen_t own_size = sizeof own;
  if (::getsockname(socket_.get(), reinterpret_cast<sockaddr*>(&own), &own_size) != 0) {
    return Error::from_errno(what + ": getsockname");
  }
  const base::Deadline deadline = base::Deadline::after(kKernelAnswers);
  std::vector<std::uint8_t> answers;
  std::vector<std::uint8_t> buffer(32768);
  std::optional<int> verdict;
  bool whole = true;
  while (!verdict) {
    if (!CR_TRY(base::wait_readable(socket_.get(), deadline))) {
      return Error(Errc::kDeadlineExceeded, what + ": no answer from rtnetlink");
    }
    sockaddr_nl from{};
    socklen_t from_size = sizeof from;
    const ssize_t n = ::recvfrom(socket_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT,
                                 reinterpret_cast<sockaddr*>(&from), &from_size);
    if (n < 0) {
      if (errno == EAGAIN || errno == EINTR ||
          errno == ENOBUFS) {  // ENOBUFS: notifications overflowed, answers never do
        continue;
      }
      return Error::from_errno(what + ": receive from rtnetlink");
    }
    if (from.nl_pid != 0) {
      continue;  // not the kernel
    }
    for_each_message({buffer.data(), static_cast<std::size_t>(n)}, [&](const nlmsghdr& header, auto payload) {
      if (header.nlmsg_seq != sequence || header.nlmsg_pid != own.nl_pid || verdict) {
        return;  // a notification
      }
      if (header.nlmsg_type == NLMSG_DONE) {
        verdict = 0;
      } else if (header.nlmsg_type == NLMSG_ERROR) {
        nlmsgerr error{};
        verdict = read_struct(payload, error) ? -error.error : EBADMSG;
      } else if (answers.size() >= kMaxAnswer) {
        whole = false;
      } else {
        const auto* raw = reinterpret_cast<const std::uint8_t*>(&header);
        answers.insert(answers.end(), raw, raw + sizeof header);
        answers.insert(answers.end(), payload.begin(), payload.end());
        answers.resize(aligned(answers.size()));
      }
    });
  }
  if (*verdict != 0) {
    return Error::from_errno(what, *verdict);
  }
  if (!whole) {
    return Error(Errc::kResourceExhausted, what + ": the kernel's answer is too long");
  }
  return answers;
}

base::Status Rtnl::create_veth(const VethSpec& spec) {
  Request request(RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, link_message(0));
  request.text(IFLA_IFNAME, spec.name);
  request.mac(IFLA_ADDRESS, spec.mac);
  request.number(IFLA_MTU, spec.mtu);
  request.number(IFLA_NUM_TX_QUEUES, 1);
  request.number(IFLA_NUM_RX_QUEUES, 1);
  const std::size_t info = request.open(IFLA_LINKINFO);
  request.text(IFLA_INFO_KIND, "veth");
  const std::size_t data = request.open(IFLA_INFO_DATA);
  const std::size_t peer = request.open(VETH_INFO_PEER);
  request.body(link_message(0));
  request.text(IFLA_IFNAME, spec.peer_name);
  request.mac(IFLA_ADDRESS, spec.peer_mac);
  request.number(IFLA_MTU, spec.mtu);
  request.number(IFLA_NUM_TX_QUEUES, 1);
  request.number(IFLA_NUM_RX_QUEUES, 1);
  request.number(IFLA_NET_NS_FD, static_cast<std::uint32_t>(spec.peer_netns_fd));
  request.close(peer);
  request.close(data);
  request.close(info);
  (void)CR_TRY(transact(request.finish(), "create veth pair " + spec.name));
  return base::ok();
}

namespace {

std::string text_of(std::span<const std::uint8_t> value) {
  const auto* text = reinterpret_cast<const char*>(value.data());
  return {text, ::strnlen(text, value.size())};
}

std::vector<LinkInfo> links_in(std::span<const std::uint8_t> answer) {
  std::vector<LinkInfo> out;
  for_each_message(answer, [&](const nlmsghdr& header, auto payload) {
    ifinfomsg message{};
    if (header.nlmsg_type != RTM_NEWLINK || !read_struct(payload, message)) {
      return;
    }
    LinkInfo link;
    link.index = static_cast<std::uint32_t>(message.ifi_index);
    for_each_attribute(payload.subspan(std::min(payload.size(), aligned(sizeof message))), [&](auto type, auto value) {
      switch (type) {
        case IFLA_LINK: (void)read_struct(value, link.peer); break;
        case IFLA_MTU: (void)read_struct(value, link.mtu); break;
        case IFLA_IFNAME: link.name = text_of(value); break;
        case IFLA_IFALIAS: link.alias = text_of(value); break;
        default: break;
      }
    });
    out.push_back(std::move(link));
  });
  return out;
}

}  // namespace

base::Result<std::uint32_t> Rtnl::link_index(const std::string& name) {
  return CR_TRY(find_link(name)).index;
}

base::Result<LinkInfo> Rtnl::find_link(const std::string& name) {
  Request request(RTM_GETLINK, NLM_F_ACK, link_message(0));
  request.text(IFLA_IFNAME, name);
  auto answer = transact(request.finish(), "look up link " + name);
  if (!answer.ok()) {
    if (answer.error().os_errno() == ENODEV) {
      return Error(Errc::kNotFound, "link " + name + " does not exist", ENODEV);
    }
    return std::move(answer).error();
  }
  std::vector<LinkInfo> links = links_in(*answer);
  if (links.size() != 1 || links.front().index == 0) {
    return Error(Errc::kDataLoss, "look up link " + name + ": the kernel's answer names none");
  }
  return std::move(links.front());
}

base::Result<std::vector<LinkInfo>> Rtnl::list_links() {
  Request request(RTM_GETLINK, NLM_F_DUMP, link_message(0));
  return links_in(CR_TRY(transact(request.finish(), "list links")));
}

base::Status Rtnl::set_alias(std::uint32_t ifindex, const std::string& alias) {
  Request request(RTM_NEWLINK, NLM_F_ACK, link_message(ifindex));
  request.bytes(IFLA_IFALIAS, alias.data(), alias.size());
  (void)CR_TRY(transact(request.finish(), of_link("alias", ifindex)));
  return base::ok();
}

base::Status Rtnl::rename(std::uint32_t ifindex, const std::string& name) {
  Request request(RTM_NEWLINK, NLM_F_ACK, link_message(ifindex));
  request.text(IFLA_IFNAME, name);
  (void)CR_TRY(transact(request.finish(), "name link " + name));
  return base::ok();
}

base::Status Rtnl::set_up(std::uint32_t ifindex) {
  Request request(RTM_NEWLINK, NLM_F_ACK, link_message(ifindex, IFF_UP, IFF_UP));
  (void)CR_TRY(transact(request.finish(), of_link("set up", ifindex)));
  return base::ok();
}

base::Status Rtnl::set_down(std::uint32_t ifindex) {
  Request request(RTM_NEWLINK, NLM_F_ACK, link_message(ifindex, 0, IFF_UP));
  (void)CR_TRY(transact(request.finish(), of_link("set down", ifindex)));
  return base::ok();
}

base::Status Rtnl::delete_link(std::uint32_t ifindex) {
  Request request(RTM_DELLINK, NLM_F_ACK, link_message(ifindex));
  auto done = transact(request.finish(), of_link("deletion", ifindex));
  if (!done.ok() && done.error().os_errno() != ENODEV) {
    return std::move(done).error();
  }
  return base::ok();
}

base::Status Rtnl::add_address(std::uint32_t ifindex, std::uint32_t address, int prefix) {
  ifaddrmsg message{};
  message.ifa_family = AF_INET;
  message.ifa_prefixlen = static_cast<std::uint8_t>(prefix);
  message.ifa_index = ifindex;
  Request request(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, message);
  request.address(IFA_LOCAL, address);
  request.address(IFA_ADDRESS, address);
  (void)CR_TRY(transact(request.finish(), of_link("address", ifindex)));
  return base::ok();
}

base::Status Rtnl::add_neighbour(std::uint32_t ifindex, std::uint32_t address, const Mac& mac) {
  ndmsg message{};
  message.ndm_family = AF_INET;
  message.ndm_ifindex = static_cast<int>(ifindex);
  message.ndm_state = NUD_PERMANENT;
  Request request(RTM_NEWNEIGH, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, message);
  request.address(NDA_DST, address);
  request.mac(NDA_LLADDR, mac);
  (void)CR_TRY(transact(request.finish(), of_link("neighbour", ifindex)));
  return base::ok();
}

base::Status Rtnl::add_default_route(std::uint32_t ifindex, std::uint32_t gateway) {
  rtmsg message{};
  message.rtm_family = AF_INET;
  message.rtm_table = RT_TABLE_MAIN;
  message.rtm_protocol = RTPROT_STATIC;
  message.rtm_scope = RT_SCOPE_UNIVERSE;
  message.rtm_type = RTN_UNICAST;
  Request request(RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, message);
  request.address(RTA_GATEWAY, gateway);
  request.number(RTA_OIF, ifindex);
  (void)CR_TRY(transact(request.finish(), of_link("default route", ifindex)));
  return base::ok();
}

base::Result<std::vector<std::uint32_t>> Rtnl::tc_filters(std::uint32_t ifindex, std::uint32_t hook) {
  tcmsg message{};
  message.tcm_family = AF_UNSPEC;
  message.tcm_ifindex = static_cast<int>(ifindex);
  message.tcm_parent = TC_H_MAKE(TC_H_CLSACT, hook);
  Request request(RTM_GETTFILTER, NLM_F_DUMP, message);
  const auto answer = CR_TRY(transact(request.finish(), of_link("tc filters", ifindex)));
  std::vector<std::uint32_t> programs;
  for_each_message(answer, [&](const nlmsghdr& header, auto payload) {
    tcmsg filter{};
    // The dump lists each classifier once without a handle, then its filters.
    if (header.nlmsg_type != RTM_NEWTFILTER || !read_struct(payload, filter) || filter.tcm_handle == 0) {
      return;
    }
    std::uint32_t program = 0;
    for_each_attribute(payload.subspan(std::min(payload.size(), aligned(sizeof filter))), [&](auto type, auto value) {
      if (type == TCA_OPTIONS) {
        for_each_attribute(value, [&](auto inner, auto id) {
          if (inner == kBpfIdAttribute) {
            (void)read_struct(id, program);  // stays 0, which no program has, when malformed
          }
        });
      }
    });
    programs.push_back(program);
  });
  return programs;
}

base::Result<bool> Rtnl::wait_link_gone(const std::string& name, base::Deadline deadline) {
  const int group = RTNLGRP_LINK;
  if (::setsockopt(socket_.get(), SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) != 0) {
    return Error::from_errno("watch links");
  }
  while (true) {
    auto index = link_index(name);
    if (!index.ok()) {
      if (index.error().code() == Errc::kNotFound) {
        return true;
      }
      return std::move(index).error();
    }
    if (!CR_TRY(base::wait_readable(socket_.get(), deadline))) {
      return false;
    }
    // The content does not matter, the lookup above decides; drained so that the next wait waits.
    std::array<std::uint8_t, 8192> drop{};
    while (::recv(socket_.get(), drop.data(), drop.size(), MSG_DONTWAIT) >= 0) {
    }
  }
}

}  // namespace cellrund::netpolicy
