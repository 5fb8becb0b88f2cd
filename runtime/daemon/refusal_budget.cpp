#include "daemon/refusal_budget.hpp"

#include <algorithm>

namespace cellrund::daemon {
namespace {

constexpr std::int64_t kOne = 1'000'000'000;
constexpr std::int64_t kSecond = 1'000'000'000;
constexpr std::size_t kMaxBuckets = 4096;

}  // namespace

bool RefusalBudget::reserve(std::uint32_t uid, std::int64_t now_ns) {
  auto buckets = buckets_.lock();
  if (buckets->size() >= kMaxBuckets) {  // full buckets say nothing that a new one would not
    std::erase_if(*buckets, [now_ns](const auto& entry) { return now_ns - entry.second.at_ns > kSecond; });
  }
  const auto [entry, is_new] = buckets->try_emplace(uid, Bucket{per_second_ * kOne, now_ns});
  Bucket& bucket = entry->second;
  if (!is_new) {
    const std::int64_t passed = std::clamp<std::int64_t>(now_ns - bucket.at_ns, 0, kSecond);
    bucket.billionths = std::min(bucket.billionths + passed * per_second_, per_second_ * kOne);
    bucket.at_ns = now_ns;
  }
  if (bucket.billionths < kOne) {
    return false;
  }
  bucket.billionths -= kOne;
  return true;
}

void RefusalBudget::give_back(std::uint32_t uid) {
  auto buckets = buckets_.lock();
  if (const auto entry = buckets->find(uid); entry != buckets->end()) {
    entry->second.billionths = std::min(entry->second.billionths + kOne, per_second_ * kOne);
  }
}

}  // namespace cellrund::daemon
