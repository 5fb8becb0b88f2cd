#include "netpolicy/canary.hpp"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string>
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

struct Probe {
  base::Bytes frame;
  unsigned verdict;  // that it deserves
};

// As if the lease had been given: what a rule allows must not pass for blocked because nothing is allowed yet.
Conditions as_armed() {
  return {CR_STATE_ENFORCE, {}, static_cast<std::uint64_t>(base::BootTime::now().ns), CR_NEVER};
}

base::Result<std::vector<Probe>> probes_out(const cr_config& config, const CompiledPolicy& policy,
                                            std::span<const model::ExpectBlocked> expect_blocked) {
  FrameSpec spec;
  std::memcpy(spec.source_mac.data(), config.cell_mac, spec.source_mac.size());
  std::memcpy(spec.destination_mac.data(), config.gateway_mac, spec.destination_mac.size());
  spec.source = address_of(config);
  spec.source_port = kSourcePort;
  std::vector<Probe> probes;
  const auto add = [&](std::uint32_t destination, std::uint16_t port, std::uint8_t protocol) {
    spec.destination = destination;
    spec.destination_port = port;
    spec.protocol = protocol;
    base::Bytes frame = build_frame(spec);
    const Classified expected = Classifier(config, policy).out(frame, as_armed());
    if (!expected.passes()) {
      probes.push_back({std::move(frame), expected.verdict});
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
  return probes;
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

}  // namespace

base::Result<base::UniqueFd> open_packet_socket() {
  base::UniqueFd socket(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
  if (!socket) {
    return Error::from_errno("open packet socket");
  }
  return socket;
}

base::Result<CanaryResult> run_canary(const CanarySide& cell, const CanarySide& router, const cr_config& config,
                                      const CompiledPolicy& policy, int counters_fd, int decisions_fd,
                                      std::span<const model::ExpectBlocked> expect_blocked, base::Deadline deadline) {
  const std::vector<Probe> probes = CR_TRY(probes_out(config, policy, expect_blocked));
  CR_CHECK(bind_behind(cell));
  CR_CHECK(bind_behind(router));
  const Account before = CR_TRY(read_account(counters_fd, decisions_fd));
  std::array<std::uint64_t, CR_VERDICTS> expected = before.packets;

  CanaryResult result;
  for (const Probe& probe : probes) {
    CR_CHECK(send_frame(cell, probe.frame));
    ++expected.at(probe.verdict);
    ++result.sent;
  }
  const base::Bytes inbound = frame_in(config);
  CR_CHECK(send_frame(router, inbound));
  ++expected.at(Classifier(config, policy).in(inbound, as_armed()).verdict);
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

}  // namespace cellrund::netpolicy
