#include "netpolicy/canary.hpp"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "netpolicy/account.hpp"
#include "netpolicy/address.hpp"
#include "netpolicy/classifier.hpp"
#include "netpolicy/frame.hpp"

namespace cellrund::netpolicy {
namespace {

using base::Errc;
using base::Error;

constexpr std::uint8_t kTcp = 6;
constexpr std::uint8_t kUdp = 17;
constexpr std::uint16_t kSourcePort = 40000;

base::Status bind_behind(const CanarySide& side) {
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(ETH_P_IP);
  address.sll_ifindex = static_cast<int>(side.ifindex);
  if (::bind(side.socket, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return Error::from_errno("canary: bind to link " + std::to_string(side.ifindex));
  }
  return base::ok();
}

base::Status send_frame(const CanarySide& side, const base::Bytes& frame) {
  // ENOBUFS is how a sender learns that the filter at its own interface's egress dropped the frame.
  if (::send(side.socket, frame.data(), frame.size(), 0) < 0 && errno != ENOBUFS) {
    return Error::from_errno("canary: send on link " + std::to_string(side.ifindex));
  }
  return base::ok();
}

std::uint64_t drain(int socket) {
  std::uint64_t frames = 0;
  std::array<std::uint8_t, 64> head{};
  while (::recv(socket, head.data(), head.size(), MSG_DONTWAIT) >= 0) {
    ++frames;
  }
  return frames;
}

std::uint32_t address_of(const cr_config& config) {
  std::uint32_t wire = 0;
  std::memcpy(&wire, config.cell_address, sizeof wire);
  return ntohl(wire);
}

// As if the lease had been given: what a rule allows must not pass for blocked because nothing is allowed yet.
Conditions as_armed() {
  return {CR_STATE_ENFORCE, {}, static_cast<std::uint64_t>(base::BootTime::now().ns), CR_NEVER};
}

base::Bytes frame_in(const cr_config& config) {
  FrameSpec spec;
  std::memcpy(spec.source_mac.data(), config.gateway_mac, spec.source_mac.size());
  std::memcpy(spec.destination_mac.data(), config.cell_mac, spec.destination_mac.size());
  spec.source = 0xc0000201;
  spec.destination = address_of(config);
  spec.source_port = 9;
  spec.destination_port = kSourcePort;
  return build_frame(spec);
}

Probe probe_of(base::Bytes frame, const Classified& expected) {
  Probe probe{std::move(frame), expected.key};
  probe.key.reason = static_cast<cr_u8>(expected.verdict);
  return probe;
}

// How many of the frames that came out behind a filter are of these.
std::uint64_t drain_own(int socket, std::span<const Probe> probes) {
  std::uint64_t own = 0;
  std::array<std::uint8_t, 128> head{};
  for (ssize_t n = 0; (n = ::recv(socket, head.data(), head.size(), MSG_DONTWAIT)) >= 0;) {
    own += std::any_of(probes.begin(), probes.end(), [&](const Probe& probe) {
      return std::cmp_equal(n, probe.frame.size()) && std::equal(probe.frame.begin(), probe.frame.end(), head.begin());
    });
  }
  return own;
}

std::uint64_t times_counted(int decisions_fd, const cr_decision_key& key) {
  cr_decision decision{};
  return ::bpf_map_lookup_elem(decisions_fd, &key, &decision) == 0 ? decision.count : 0;
}

// Beyond what had been counted before, and never more than were sent: several may share a key.
std::uint64_t newly_counted(int decisions_fd, std::span<const Probe* const> probes,
                            std::span<const std::uint64_t> before) {
  std::vector<cr_decision_key> seen;
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < probes.size(); ++i) {
    const auto same = [&](const cr_decision_key& key) { return std::memcmp(&key, &probes[i]->key, sizeof key) == 0; };
    if (std::any_of(seen.begin(), seen.end(), same)) {
      continue;
    }
    seen.push_back(probes[i]->key);
    const auto sent = static_cast<std::uint64_t>(
        std::count_if(probes.begin(), probes.end(), [&](const Probe* p) { return same(p->key); }));
    total += std::min(sent, times_counted(decisions_fd, probes[i]->key) - before[i]);
  }
  return total;
}

}  // namespace

base::Result<Probes> canary_probes(const cr_config& config, const CompiledPolicy& policy,
                                   std::span<const model::ExpectBlocked> expect_blocked) {
  FrameSpec spec;
  std::memcpy(spec.source_mac.data(), config.cell_mac, spec.source_mac.size());
  std::memcpy(spec.destination_mac.data(), config.gateway_mac, spec.destination_mac.size());
  spec.source = address_of(config);
  spec.source_port = kSourcePort;
  Probes probes;
  const auto add = [&](std::uint32_t destination, std::uint16_t port, std::uint8_t protocol) {
    spec.destination = destination;
    spec.destination_port = port;
    spec.protocol = protocol;
    base::Bytes frame = build_frame(spec);
    const Classified expected = Classifier(config, policy).out(frame, as_armed());
    if (!expected.passes()) {
      probes.out.push_back(probe_of(std::move(frame), expected));
    }
    return !expected.passes();
  };
  for (const model::ExpectBlocked& target : expect_blocked) {
    if (!add(CR_TRY(parse_ipv4(target.address)), target.port, target.protocol == "tcp" ? kTcp : kUdp)) {
      return Error(Errc::kFailedPrecondition, "canary: spec.network.expectBlocked names " + target.address + ":" +
                                                  std::to_string(target.port) + "/" + target.protocol +
                                                  ", which a rule of the same job allows");
    }
  }
  (void)add(0xa9fea9fe, 80, kTcp);  // 169.254.169.254, cloud metadata: no policy allows it
  (void)add(0xc6336435, 53, kUdp);  // 198.51.100.53 (RFC 5737), DNS
  (void)add(0xc0000201, 9, kUdp);   // 192.0.2.1 (RFC 5737), discard
  base::Bytes inbound = frame_in(config);
  const Classified expected = Classifier(config, policy).in(inbound, as_armed());
  probes.in = probe_of(std::move(inbound), expected);
  return probes;
}

base::Result<base::UniqueFd> open_packet_socket() {
  base::UniqueFd socket(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
  if (!socket) {
    return Error::from_errno("open packet socket");
  }
  return socket;
}

base::Result<CanaryResult> run_canary(const CanarySide& cell, const CanarySide& router, const Probes& probes,
                                      int counters_fd, int decisions_fd, base::Deadline deadline) {
  CR_CHECK(bind_behind(cell));
  CR_CHECK(bind_behind(router));
  const Account before = CR_TRY(read_account(counters_fd, decisions_fd));
  std::array<std::uint64_t, CR_VERDICTS> expected = before.packets;

  CanaryResult result;
  for (const Probe& probe : probes.out) {
    CR_CHECK(send_frame(cell, probe.frame));
    ++expected.at(probe.key.reason);
    ++result.sent;
  }
  CR_CHECK(send_frame(router, probes.in.frame));
  ++expected.at(probes.in.key.reason);
  ++result.sent;

  // Frames cross the veth pair in softirq context, usually before send() returns. Each is counted before it could reach
  // a socket, in order; the last one sent on each side is the only one whose delivery a look right after the count
  // might miss.
  std::uint64_t leaked = 0;
  while (true) {
    const Account now = CR_TRY(read_account(counters_fd, decisions_fd));
    result.counted = now.counted() - before.counted();
    leaked += drain(router.socket) + drain(cell.socket);
    if (leaked != 0 || result.counted >= result.sent) {
      if (leaked == 0 && now.packets != expected) {
        return Error(Errc::kFailedPrecondition, "canary: frames were counted under other reasons than they deserve");
      }
      break;
    }
    if (deadline.expired()) {
      break;
    }
    constexpr auto kLook = std::chrono::milliseconds(1);
    (void)CR_TRY(base::wait_readable(router.socket, base::Deadline::after(kLook)));
  }
  result.blocked = result.sent - std::min(leaked, result.sent);
  if (leaked != 0 || result.counted != result.sent) {
    return Error(Errc::kFailedPrecondition, "canary: " + std::to_string(result.sent) + " frames sent, " +
                                                std::to_string(result.blocked) + " blocked, " +
                                                std::to_string(result.counted) + " counted");
  }
  return result;
}

base::Result<EndCanaryResult> run_end_canary(const CanarySide& cell, const CanarySide& router, const Probes& probes,
                                             int counters_fd, int decisions_fd, base::Deadline deadline) {
  CR_CHECK(bind_behind(cell));
  CR_CHECK(bind_behind(router));
  std::vector<const Probe*> all{&probes.in};
  for (const Probe& probe : probes.out) {
    all.push_back(&probe);
  }
  std::vector<std::uint64_t> before;
  for (const Probe* probe : all) {
    before.push_back(times_counted(decisions_fd, probe->key));
  }
  const auto cut_so_far = [&]() -> base::Result<std::uint64_t> {
    const Account account = CR_TRY(read_account(counters_fd, decisions_fd));
    return account.packets[CR_KILLED] + account.packets[CR_KILL_SWITCH];
  };
  const std::uint64_t cut_before = CR_TRY(cut_so_far());

  for (const Probe& probe : probes.out) {
    CR_CHECK(send_frame(cell, probe.frame));
  }
  CR_CHECK(send_frame(router, probes.in.frame));

  EndCanaryResult result;
  CanaryResult& canary = result.canary;
  canary.sent = all.size();
  std::uint64_t leaked = 0;
  while (true) {
    canary.counted = newly_counted(decisions_fd, all, before);
    result.cut = CR_TRY(cut_so_far()) - cut_before;
    leaked += drain_own(router.socket, probes.out) + drain_own(cell.socket, {&probes.in, 1});
    if (leaked != 0 || canary.counted + result.cut >= canary.sent || deadline.expired()) {
      break;
    }
    constexpr auto kLook = std::chrono::milliseconds(1);
    (void)CR_TRY(base::wait_readable(router.socket, base::Deadline::after(kLook)));
  }
  canary.blocked = canary.sent - std::min(leaked, canary.sent);
  return result;
}

}  // namespace cellrund::netpolicy
