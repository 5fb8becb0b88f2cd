#include "shim/traffic_redirect.hpp"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/netlink.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <linux/tc_act/tc_mirred.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "base/clock.hpp"
#include "base/fd.hpp"
#include "base/file.hpp"

namespace cellrund::shim {
namespace {

using base::Error;
using base::Result;
using base::Status;

// One request under construction. Sizes are fixed and far below the buffer.
class Message {
 public:
  Message(std::uint16_t type, unsigned ifindex, std::uint32_t parent, std::uint32_t handle, std::uint32_t info) {
    header().nlmsg_type = type;
    header().nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    header().nlmsg_len = NLMSG_LENGTH(sizeof(tcmsg));
    auto* tc = reinterpret_cast<tcmsg*>(buffer_.data() + NLMSG_HDRLEN);
    tc->tcm_family = AF_UNSPEC;
    tc->tcm_ifindex = static_cast<int>(ifindex);
    tc->tcm_parent = parent;
    tc->tcm_handle = handle;
    tc->tcm_info = info;
  }

  void add(std::uint16_t type, const void* data, std::size_t size) {
    rtattr* attribute = open(type);
    attribute->rta_len = static_cast<std::uint16_t>(RTA_LENGTH(size));
    if (size != 0) {
      std::memcpy(reinterpret_cast<char*>(attribute) + RTA_LENGTH(0), data, size);
    }
    header().nlmsg_len += static_cast<std::uint32_t>(RTA_ALIGN(RTA_LENGTH(size)));
  }
  void add_text(std::uint16_t type, const char* text) { add(type, text, std::strlen(text) + 1); }

  // Attributes added until end() are its children.
  [[nodiscard]] std::size_t begin(std::uint16_t type) {
    const std::size_t at = NLMSG_ALIGN(header().nlmsg_len);
    add(type, nullptr, 0);
    return at;
  }
  void end(std::size_t at) {
    auto* attribute = reinterpret_cast<rtattr*>(buffer_.data() + at);
    attribute->rta_len = static_cast<std::uint16_t>(header().nlmsg_len - at);
  }

  [[nodiscard]] nlmsghdr& header() noexcept { return *reinterpret_cast<nlmsghdr*>(buffer_.data()); }

 private:
  rtattr* open(std::uint16_t type) {
    auto* attribute = reinterpret_cast<rtattr*>(buffer_.data() + NLMSG_ALIGN(header().nlmsg_len));
    attribute->rta_type = type;
    return attribute;
  }
  alignas(nlmsghdr) std::array<char, 512> buffer_{};
};

Status transact(int socket, Message message) {
  if (::send(socket, &message.header(), message.header().nlmsg_len, 0) < 0) {
    return Error::from_errno("send to rtnetlink");
  }
  // The kernel answers within the system call; the deadline only guards against surprises.
  if (!CR_TRY(base::wait_readable(socket, base::Deadline::after(std::chrono::seconds(2))))) {
    return Error(base::Errc::kDeadlineExceeded, "no answer from rtnetlink");
  }
  alignas(nlmsghdr) std::array<char, 4096> answer{};
  const ssize_t n = ::recv(socket, answer.data(), answer.size(), 0);
  const auto* header = reinterpret_cast<const nlmsghdr*>(answer.data());
  if (n < static_cast<ssize_t>(NLMSG_LENGTH(sizeof(nlmsgerr))) || header->nlmsg_type != NLMSG_ERROR) {
    return Error(base::Errc::kUnknown, "unexpected answer from rtnetlink");
  }
  const auto* result = reinterpret_cast<const nlmsgerr*>(answer.data() + NLMSG_HDRLEN);
  return result->error == 0 ? base::ok() : Status(Error::from_errno("rtnetlink", -result->error));
}

Status add_clsact(int socket, unsigned ifindex) {
  Message message(RTM_NEWQDISC, ifindex, TC_H_CLSACT, TC_H_MAKE(TC_H_CLSACT, 0), 0);
  message.add_text(TCA_KIND, "clsact");
  return transact(socket, message).context("add clsact");
}

Status add_redirect(int socket, unsigned from, unsigned to) {
  constexpr std::uint32_t kPriority = 1;
  Message message(RTM_NEWTFILTER, from, TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS), 0,
                  TC_H_MAKE(kPriority << 16U, htons(ETH_P_ALL)));
  // u32 without a key matches every frame, short ones included (net/sched/cls_u32.c, u32_classify). matchall would say
  // the same more plainly, but is missing in kernels that have u32.
  message.add_text(TCA_KIND, "u32");
  const std::size_t options = message.begin(TCA_OPTIONS);
  tc_u32_sel selector{};
  selector.flags = TC_U32_TERMINAL;
  message.add(TCA_U32_SEL, &selector, sizeof(selector));
  const std::size_t actions = message.begin(TCA_U32_ACT);
  const std::size_t first = message.begin(1);
  message.add_text(TCA_ACT_KIND, "mirred");
  const std::size_t action_options = message.begin(TCA_ACT_OPTIONS);
  tc_mirred mirred{};
  mirred.action = TC_ACT_STOLEN;
  mirred.eaction = TCA_EGRESS_REDIR;
  mirred.ifindex = to;
  message.add(TCA_MIRRED_PARMS, &mirred, sizeof(mirred));
  message.end(action_options);
  message.end(first);
  message.end(actions);
  message.end(options);
  return transact(socket, message).context("add redirect");
}

}  // namespace

Status redirect_both_ways(unsigned first_index, unsigned second_index) {
  const base::UniqueFd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  if (!socket) {
    return Error::from_errno("netlink socket");
  }
  CR_CHECK(add_clsact(socket.get(), first_index));
  CR_CHECK(add_clsact(socket.get(), second_index));
  CR_CHECK(add_redirect(socket.get(), first_index, second_index));
  return add_redirect(socket.get(), second_index, first_index);
}

}  // namespace cellrund::shim
