// Random traffic of one cell: good packets of few flows and their replies, rows of the tables, noise, and all of them with
// bytes changed.
#pragma once

#include <random>
#include <vector>

#include "tests/bpf/harness.hpp"

namespace cellrund::test {

struct Traffic {
  base::Bytes frame;
  bool outward;
};

class RandomTraffic {
 public:
  explicit RandomTraffic(std::uint64_t seed) : random_(seed) {
    for (const auto& table : {packet_table(), policy_table()}) {
      for (const auto& row : table) {
        rows_.push_back(row.frame);
      }
    }
  }

  // Only frames that the kernel accepts in a test run.
  Traffic next() {
    Traffic out = draw();
    while (!can_run(out.frame)) {
      out = draw();
    }
    return out;
  }
  // A service that names may have, among those that packets are sent to.
  NamedService service() {
    return {below(4) == 0 ? model::Transport::kUdp : model::Transport::kTcp, kPorts[below(5)], kTargets[below(7)]};
  }
  std::size_t below(std::size_t n) { return static_cast<std::size_t>(random_() % n); }

 private:
  static constexpr std::uint32_t kTargets[] = {kAllowed, 0xc0000208, 0xc0000235, 0x0a020002, 0x0a02ffff, kOutside, kCellAddress - 1};
  static constexpr std::uint16_t kPorts[] = {443, 8443, 53, 22, 9999};

  std::uint32_t any() { return static_cast<std::uint32_t>(random_()); }

  // Few addresses and ports, so that flows are met again.
  base::Bytes of_a_flow() {
    constexpr std::uint8_t kFlags[] = {0x02, 0x02, 0x02, 0x10, 0x18, 0x11, 0x04, 0x12, 0x00, 0x03};
    base::Bytes frame = packet(kTargets[below(7)], kPorts[below(5)], below(4) == 0 ? kUdp : kTcp);
    frame[35] = static_cast<std::uint8_t>(below(4));
    if (frame[23] == kTcp) {
      frame[kTcpFlags] = kFlags[below(10)];
    }
    return frame;
  }

  base::Bytes noise() {
    base::Bytes frame(kShortestInput + below(90));
    for (auto& byte : frame) {
      byte = static_cast<std::uint8_t>(random_());
    }
    if (below(2) == 0 && frame.size() > 34) {  // random behind good addresses
      frame = with(frame, 0, {0x02, 0x43, 0x52, 0, 0, 1, 0x02, 0x43, 0x52, 0, 0, 2, 0x08, 0x00, 0x45});
    }
    return frame;
  }

  base::Bytes to_a_range() {
    constexpr std::uint32_t kNets[] = {0xe0000000, 0xf0000000, 0x7f000000, 0xa9fe0000, 0x64400000, 0x00000000,
                                       0xffffffff, 0x0a000000, 0xac100000, 0xc0a80000, 0xc0000200, 0xcb007100};
    return packet(kNets[below(12)] ^ (any() & (below(2) == 0 ? 0x00ffffffU : 0xffU)), below(2) == 0 ? 9999 : 443,
                  below(2) == 0 ? kTcp : kUdp);
  }

  Traffic draw() {
    Traffic out{{}, below(4) != 0};
    switch (below(8)) {
      case 0:
        out.frame = noise();
        break;
      case 1:
        out.frame = to_a_range();
        break;
      case 2:
        out.frame = rows_[below(rows_.size())];
        break;
      default:
        out.frame = of_a_flow();
    }
    if (!out.outward && out.frame.size() >= 42 && below(16) != 0) {
      out.frame = reply_to(out.frame, static_cast<std::uint8_t>(below(8) == 0 ? 0x11 : 0x10));
    }
    if (below(3) == 0) {
      for (std::size_t changes = 1 + below(3); changes > 0; --changes) {
        std::uint8_t& byte = out.frame[below(std::min<std::size_t>(out.frame.size(), 48))];
        byte = static_cast<std::uint8_t>(below(2) == 0 ? random_() : byte ^ (1U << below(8)));
      }
    }
    if (below(16) == 0) {
      out.frame.resize(kShortestInput + below(60));
    }
    return out;
  }

  std::mt19937_64 random_;
  std::vector<base::Bytes> rows_;
};

}  // namespace cellrund::test
