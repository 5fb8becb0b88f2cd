#include "netpolicy/samples.hpp"

#include <bpf/libbpf.h>

#include <algorithm>
#include <bit>
#include <memory>
#include <tuple>

namespace cellrund::netpolicy {
namespace {

struct RingDeleter {
  void operator()(ring_buffer* ring) const noexcept { ::ring_buffer__free(ring); }
};

}  // namespace

void Samples::Table::drop_one() {
  const auto least = std::min_element(rows.begin(), rows.end(), [](const auto& a, const auto& b) {
    return std::tie(a.second.count, a.second.last_ns) < std::tie(b.second.count, b.second.last_ns);
  });
  dropped[std::bit_cast<cr_decision_key>(least->first).reason] += least->second.count;
  rows.erase(least);
}

void Samples::Table::take(const cr_sample& sample) {
  const auto key = std::bit_cast<std::uint64_t>(sample.what);
  if (!rows.contains(key) && rows.size() == kMost) {
    drop_one();
  }
  cr_decision& row = rows.try_emplace(key, cr_decision{0, sample.at_ns, sample.at_ns}).first->second;
  ++row.count;
  row.last_ns = std::max(row.last_ns, sample.at_ns);
}

base::Status Samples::drain(int ring_fd) {
  auto table = table_.lock();
  const auto on_event = [](void* context, void* data, std::size_t size) -> int {
    cr_sample sample{};
    if (size >= sizeof sample) {
      std::copy_n(static_cast<const std::uint8_t*>(data), sizeof sample, reinterpret_cast<std::uint8_t*>(&sample));
      if (sample.what.reason <= CR_ALLOWED) {
        static_cast<Table*>(context)->take(sample);
      }
    }
    return 0;
  };
  const std::unique_ptr<ring_buffer, RingDeleter> ring(::ring_buffer__new(ring_fd, on_event, &*table, nullptr));
  if (!ring) {
    return base::Error::from_errno("map the ring of samples");
  }
  if (const int taken = ::ring_buffer__consume(ring.get()); taken < 0) {
    return base::Error::from_errno("read the ring of samples", -taken);
  }
  return base::ok();
}

void Samples::add_to(Account& account) {
  auto table = table_.lock();
  for (const auto& [key, row] : table->rows) {
    account.decisions.emplace_back(std::bit_cast<cr_decision_key>(key), row);
  }
  for (unsigned verdict = 0; verdict < CR_VERDICTS; ++verdict) {
    account.suppressed[verdict] += table->dropped[verdict];
  }
}

}  // namespace cellrund::netpolicy
