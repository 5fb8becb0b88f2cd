#include "netpolicy/firewall.hpp"

#include <arpa/inet.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/file.hpp"
#include "base/process.hpp"
#include "netpolicy/names.hpp"

namespace cellrund::netpolicy {
namespace {

using base::Errc;
using base::Error;

constexpr auto kNftBudget = std::chrono::seconds(10);
constexpr auto kKernelAnswers = std::chrono::seconds(5);

// `table` before `delete table`: deleting one that does not exist would fail the transaction.
std::string ruleset(std::uint32_t mark) {
  std::array<char, 16> hex{};
  (void)std::snprintf(hex.data(), hex.size(), "0x%08x", mark);
  return "table inet cellrun\n"
         "delete table inet cellrun\n"
         "table inet cellrun {\n"
         "  counter unmarked {}\n"
         "  counter forwarded {}\n"
         "  counter delivered {}\n"
         "  counter passed {}\n"
         "  counter returned {}\n"
         "  chain prerouting {\n"
         "    type filter hook prerouting priority raw; policy accept;\n"
         "    iifname \"cj*\" meta mark != " + std::string(hex.data()) + " counter name unmarked drop\n"
         "  }\n"
         "  chain forward {\n"
         "    type filter hook forward priority filter; policy drop;\n"
         "    iifname \"cj*\" oifname \"" + std::string(kUplink) + "\" meta mark " + std::string(hex.data()) +
         " counter name passed accept\n"
         "    iifname \"" + std::string(kUplink) + "\" oifname \"cj*\" counter name returned accept\n"
         "    counter name forwarded drop\n"
         "  }\n"
         "  chain input {\n"
         "    type filter hook input priority filter; policy drop;\n"
         "    counter name delivered drop\n"
         "  }\n"
         "  chain output {\n"
         "    type filter hook output priority filter; policy drop;\n"
         "  }\n"
         "}\n";
}

}  // namespace

base::Status write_firewall(const std::string& nft, std::uint32_t allow_mark) {
  base::SpawnOptions command;
  command.argv = {nft, "-f", "-"};
  const auto result = CR_TRY(base::run_command(command, ruleset(allow_mark), base::Deadline::after(kNftBudget)));
  if (result.exit.signaled || result.exit.value != 0) {
    return Error(Errc::kFailedPrecondition, nft + ": " + result.err.substr(0, 512));
  }
  return base::ok();
}

base::Result<std::uint32_t> firewall_generation() {
  const base::UniqueFd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER));
  if (!socket) {
    return Error::from_errno("open nfnetlink socket");
  }
  struct {
    nlmsghdr header;
    nfgenmsg body;
  } request{};
  static_assert(sizeof request == sizeof(nlmsghdr) + sizeof(nfgenmsg));
  request.header.nlmsg_len = sizeof request;
  request.header.nlmsg_type = NFNL_SUBSYS_NFTABLES << 8U | NFT_MSG_GETGEN;
  request.header.nlmsg_flags = NLM_F_REQUEST;
  request.body.version = NFNETLINK_V0;
  if (::send(socket.get(), &request, sizeof request, 0) < 0) {
    return Error::from_errno("read firewall generation: send");
  }
  if (!CR_TRY(base::wait_readable(socket.get(), base::Deadline::after(kKernelAnswers)))) {
    return Error(Errc::kDeadlineExceeded, "read firewall generation: no answer");
  }
  std::array<std::uint8_t, 512> answer{};
  const ssize_t n = ::recv(socket.get(), answer.data(), answer.size(), MSG_DONTWAIT);
  if (n < 0) {
    return Error::from_errno("read firewall generation: receive");
  }
  const auto size = static_cast<std::size_t>(n);
  nlmsghdr header{};
  if (size < sizeof request) {
    return Error(Errc::kDataLoss, "read firewall generation: answer is too short");
  }
  std::memcpy(&header, answer.data(), sizeof header);
  if (header.nlmsg_type == NLMSG_ERROR) {
    return Error(Errc::kUnimplemented, "read firewall generation: the kernel refuses");
  }
  // NFTA_GEN_ID, four bytes in network order.
  for (std::size_t at = sizeof request; at + sizeof(nlattr) <= size;) {
    nlattr attribute{};
    std::memcpy(&attribute, answer.data() + at, sizeof attribute);
    std::uint32_t generation = 0;
    if (attribute.nla_len < sizeof attribute || at + attribute.nla_len > size) {
      break;
    }
    if (attribute.nla_type == NFTA_GEN_ID && attribute.nla_len == sizeof attribute + sizeof generation) {
      std::memcpy(&generation, answer.data() + at + sizeof attribute, sizeof generation);
      return ntohl(generation);
    }
    at += static_cast<std::size_t>(NLMSG_ALIGN(attribute.nla_len));
  }
  return Error(Errc::kDataLoss, "read firewall generation: the answer names none");
}

base::Status expect_firewall(std::uint32_t generation) {
  if (CR_TRY(firewall_generation()) != generation) {
    return Error(Errc::kFailedPrecondition, "the router's firewall was changed by somebody else");
  }
  return base::ok();
}

}  // namespace cellrund::netpolicy
