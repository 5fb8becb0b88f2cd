// How often a resolver looks at what its cell sends: each accept and each read is paid for in time, whatever it brings.
// What a flood sends beyond that waits in the kernel or is dropped there, for no CPU time of the resolver.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/clock.hpp"

namespace cellrund::netpolicy::resolver {

class ReadBudget {
 public:
  static constexpr std::int64_t kPerSecond = 1000;
  static constexpr std::int64_t kBurst = 200;

  [[nodiscard]] bool left(base::BootTime now) const noexcept { return (paid_until_ - now).count() < kCost * kBurst; }
  void spend(base::BootTime now) noexcept { paid_until_ = {std::max(paid_until_, now).ns + kCost}; }

 private:
  static constexpr std::int64_t kCost = 1'000'000'000 / kPerSecond;

  base::BootTime paid_until_;
};

}  // namespace cellrund::netpolicy::resolver
