// A flood out of a cell: UDP datagrams as raw frames on its eth0, in the calling thread's namespace, so that nothing in
// the cell slows it down. For the benchmark and the tests.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/result.hpp"

namespace cellrund::bench {

inline constexpr std::uint32_t kFirstTarget = 0x08000000;  // 8.0.0.0
inline constexpr std::uint16_t kTargetPort = 443;

struct Flood {
  std::uint32_t source = 0;  // the cell's address, host byte order
  std::uint64_t packets = 0;
  std::uint64_t per_second = 100'000;
  std::uint32_t targets = 1;  // different destination addresses, in turn: kFirstTarget and on
};

struct Flooded {
  std::uint64_t sent = 0;
  std::uint64_t refused = 0;  // of these: dropped by the link before anybody behind it could see them
};

// Until all are sent or `stop` is set. Steady: what is late is sent at once, what is early waits.
base::Result<Flooded> send_flood(const Flood& flood, const std::atomic<bool>& stop);

}  // namespace cellrund::bench
