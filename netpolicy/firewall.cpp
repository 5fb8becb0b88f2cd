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
#include "ebpf/egress_abi.h"
#include "model/ipv4.hpp"
#include "netpolicy/names.hpp"
#include "netpolicy/nft.hpp"

namespace cellrund::netpolicy {
namespace {

using base::Errc;
using base::Error;

constexpr auto kKernelAnswers = std::chrono::seconds(5);

// In front of what the forward chain accepts. Packets of no tracked connection would pass the translation unchanged. A cell
// that opens connections without end must not fill the kernel's table for everybody: it gets what its filter's flow table
// holds.
std::string uplink_rules(std::uint32_t mtu) {
  constexpr std::uint32_t kIpv4AndTcpHeader = 40;
  const std::string segment = "tcp flags syn tcp option maxseg size set " + std::to_string(mtu - kIpv4AndTcpHeader) + "\n";
  const std::string out = "    iifname \"cj*\" oifname \"" + std::string(kUplink) + "\" ";
  const std::string in = "    iifname \"" + std::string(kUplink) + "\" oifname \"cj*\" ";
  return out + "ct state invalid,untracked counter name untracked drop\n" +
         out + "ct state new add @tracked { ip saddr ct count over " + std::to_string(CR_MAX_FLOWS) + " } counter name crowded drop\n" +
         out + segment +
         in + "ct state new,invalid,untracked counter name uninvited drop\n" +
         in + segment;
}

std::string uplink_chain() {
  return "  chain postrouting {\n"
         "    type nat hook postrouting priority srcnat; policy accept;\n"
         "    oifname \"" + std::string(kUplink) + "\" masquerade\n"
         "  }\n";
}

constexpr std::string_view kUplinkObjects =
    "  counter untracked {}\n"
    "  counter crowded {}\n"
    "  counter uninvited {}\n"
    "  set tracked { type ipv4_addr; flags dynamic; size 65536; }\n";

// The two chains between this namespace's own sockets and the rest: what a cell asks its resolver, and the resolver its
// servers. Replies are told by their ports; sockets that could take anything else do not exist here.
// Not tracked: one cell's queries must not fill the table that all cells' connections share.
struct ResolverRules {
  std::string input, output, raw_in, raw_out;
};
ResolverRules resolver_rules(const std::string& mark, std::span<const std::uint32_t> upstreams) {
  if (upstreams.empty()) {
    return {};
  }
  std::string servers;
  for (const std::uint32_t upstream : upstreams) {
    servers += (servers.empty() ? "{ " : ", ") + model::format_ipv4(upstream);
  }
  servers += " }";
  const std::string up(kUplink);
  return {"    iifname \"cj*\" meta mark " + mark + " meta l4proto { tcp, udp } th dport 53 accept\n"
          "    iifname \"" + up + "\" ip saddr " + servers + " meta l4proto { tcp, udp } th sport 53 th dport >= 1024 accept\n",
          "    oifname \"cj*\" meta l4proto { tcp, udp } th sport 53 accept\n"
          "    oifname \"" + up + "\" ip daddr " + servers + " meta l4proto { tcp, udp } th dport 53 accept\n",
          "    iifname \"cj*\" meta l4proto { tcp, udp } th dport 53 fib daddr type local notrack\n",
          "  chain replies {\n"
          "    type filter hook output priority raw; policy accept;\n"
          "    oifname \"cj*\" meta l4proto { tcp, udp } th sport 53 notrack\n"
          "  }\n"};
}

// `table` before `delete table`: deleting one that does not exist would fail the transaction.
std::string ruleset(std::uint32_t mark, std::optional<std::uint32_t> uplink_mtu, std::span<const std::uint32_t> dns_upstreams) {
  std::array<char, 16> hex{};
  (void)std::snprintf(hex.data(), hex.size(), "0x%08x", mark);
  const ResolverRules resolver = resolver_rules(hex.data(), dns_upstreams);
  return "table inet cellrun\n"
         "delete table inet cellrun\n"
         "table inet cellrun {\n"
         "  counter unmarked {}\n"
         "  counter forwarded {}\n"
         "  counter delivered {}\n"
         "  counter passed {}\n"
         "  counter returned {}\n" +
         std::string(uplink_mtu ? kUplinkObjects : "") +
         "  chain prerouting {\n"
         "    type filter hook prerouting priority raw; policy accept;\n"
         "    iifname \"cj*\" meta mark != " + std::string(hex.data()) + " counter name unmarked drop\n" +
         resolver.raw_in +
         "  }\n" +
         resolver.raw_out +
         "  chain forward {\n"
         "    type filter hook forward priority filter; policy drop;\n" +
         (uplink_mtu ? uplink_rules(*uplink_mtu) : "") +
         "    iifname \"cj*\" oifname \"" + std::string(kUplink) + "\" meta mark " + std::string(hex.data()) +
         " counter name passed accept\n"
         "    iifname \"" + std::string(kUplink) + "\" oifname \"cj*\" counter name returned accept\n"
         "    counter name forwarded drop\n"
         "  }\n"
         "  chain input {\n"
         "    type filter hook input priority filter; policy drop;\n" +
         resolver.input +
         "    counter name delivered drop\n"
         "  }\n"
         "  chain output {\n"
         "    type filter hook output priority filter; policy drop;\n" +
         resolver.output +
         "  }\n" +
         (uplink_mtu ? uplink_chain() : "") +
         "}\n";
}

}  // namespace

base::Status write_firewall(const std::string& nft, std::uint32_t allow_mark, std::optional<std::uint32_t> uplink_mtu,
                            std::span<const std::uint32_t> dns_upstreams) {
  return run_nft(nft, ruleset(allow_mark, uplink_mtu, dns_upstreams));
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
