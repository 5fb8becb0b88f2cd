#include "tools/bench/flood/sender.hpp"

#include <linux/if_packet.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <vector>

#include "base/clock.hpp"
#include "netpolicy/canary.hpp"
#include "netpolicy/frame.hpp"
#include "netpolicy/names.hpp"
#include "netpolicy/rtnl.hpp"
#include "tools/bench/flood/counters.hpp"

namespace cellrund::bench {
namespace {

using base::Error;
using namespace netpolicy;

constexpr unsigned kBatch = 32;

std::vector<base::Bytes> frames_of(const Flood& flood) {
  std::vector<base::Bytes> frames;
  for (std::uint32_t i = 0; i < std::max(flood.targets, 1U); ++i) {
    frames.push_back(build_frame({kCellMac, kGatewayMac, flood.source, kFirstTarget + i, 17, 40000, kTargetPort}));
  }
  return frames;
}

std::int64_t now_ns() {
  return base::Deadline::after(base::Nanoseconds(0)).monotonic_ns();
}

// The rate is what waits here: there is nothing to be told about.
void pause_until(std::int64_t ns) {
  if (const std::int64_t left = ns - now_ns(); left > 0) {
    const timespec time{left / 1'000'000'000, left % 1'000'000'000};
    (void)::ppoll(nullptr, 0, &time, nullptr);
  }
}

}  // namespace

base::Result<Flooded> send_flood(const Flood& flood, const std::atomic<bool>& stop) {
  const base::UniqueFd socket = CR_TRY(open_packet_socket());
  const int yes = 1;
  if (::setsockopt(socket.get(), SOL_PACKET, PACKET_QDISC_BYPASS, &yes, sizeof yes) != 0) {
    return Error::from_errno("bypass the qdisc");
  }
  Rtnl rtnl = CR_TRY(Rtnl::open());
  sockaddr_ll to{};
  to.sll_family = AF_PACKET;
  to.sll_ifindex = static_cast<int>(CR_TRY(rtnl.link_index(kCellInterface)));

  std::vector<base::Bytes> frames = frames_of(flood);
  std::array<iovec, kBatch> parts{};
  std::array<mmsghdr, kBatch> messages{};
  for (unsigned i = 0; i < kBatch; ++i) {
    messages[i].msg_hdr.msg_name = &to;
    messages[i].msg_hdr.msg_namelen = sizeof to;
    messages[i].msg_hdr.msg_iov = &parts[i];
    messages[i].msg_hdr.msg_iovlen = 1;
  }
  const std::uint64_t dropped_before = CR_TRY(link_counter(kCellInterface, LinkCounter::kDroppedSending));
  const std::int64_t start = now_ns();
  Flooded out;
  while (out.sent < flood.packets && !stop) {
    pause_until(start + static_cast<std::int64_t>(out.sent * 1'000'000'000U / flood.per_second));
    const auto count = static_cast<unsigned>(std::min<std::uint64_t>(kBatch, flood.packets - out.sent));
    for (unsigned i = 0; i < count; ++i) {
      base::Bytes& frame = frames[(out.sent + i) % frames.size()];
      parts[i] = {frame.data(), frame.size()};
    }
    int sent = ::sendmmsg(socket.get(), messages.data(), count, 0);
    if (sent < 0 && errno != EINTR && errno != ENOBUFS) {
      return Error::from_errno("send");
    }
    if (sent < 0) {
      sent = errno == ENOBUFS ? 1 : 0;  // ENOBUFS: one that the link has dropped, and counted as such
    }
    out.sent += static_cast<std::uint64_t>(sent);
  }
  out.refused = CR_TRY(link_counter(kCellInterface, LinkCounter::kDroppedSending)) - dropped_before;
  return out;
}

}  // namespace cellrund::bench
