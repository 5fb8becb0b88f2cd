// How many refused submissions one peer uid may cost per second: each refusal is a signed record on the disk. A token
// bucket of one second's worth per uid. Thread-safe.
#pragma once

#include <cstdint>
#include <map>

#include "base/guarded.hpp"

namespace cellrund::daemon {

class RefusalBudget {
 public:
  explicit RefusalBudget(std::int64_t per_second) noexcept : per_second_(per_second) {}

  // Before a submission is looked at: reserves one refusal. False above the budget. `now_ns` is CLOCK_MONOTONIC.
  bool reserve(std::uint32_t uid, std::int64_t now_ns);
  // The submission was no refusal.
  void give_back(std::uint32_t uid);

 private:
  struct Bucket {
    std::int64_t billionths = 0;  // of a refusal: per_second times a nanosecond
    std::int64_t at_ns = 0;
  };
  const std::int64_t per_second_;
  base::Guarded<std::map<std::uint32_t, Bucket>> buckets_;
};

}  // namespace cellrund::daemon
