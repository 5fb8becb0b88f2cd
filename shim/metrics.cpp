#include "shim/metrics.hpp"

#include <limits>

#include "containerd_shim.pb.h"

namespace cellrund::shim {
namespace {

// The kernel's word for no limit, as containerd reads it.
std::uint64_t limit(std::uint64_t value) noexcept {
  return value == 0 ? std::numeric_limits<std::uint64_t>::max() : value;
}

}  // namespace

std::string encode_metrics(const host::CgroupLoad& load) {
  shimapi::Metrics metrics;
  metrics.mutable_pids()->set_current(load.pids);
  metrics.mutable_pids()->set_limit(limit(load.pids_limit));
  metrics.mutable_cpu()->set_usage_usec(load.cpu_usage_us);
  metrics.mutable_cpu()->set_user_usec(load.cpu_user_us);
  metrics.mutable_cpu()->set_system_usec(load.cpu_system_us);
  metrics.mutable_memory()->set_usage(load.memory_bytes);
  metrics.mutable_memory()->set_usage_limit(limit(load.memory_limit_bytes));
  metrics.mutable_memory()->set_anon(load.memory_anon_bytes);
  metrics.mutable_memory()->set_file(load.memory_file_bytes);
  metrics.mutable_memory()->set_inactive_file(load.memory_inactive_file_bytes);
  metrics.mutable_memory_events()->set_oom_kill(load.oom_kills);
  return metrics.SerializeAsString();
}

}  // namespace cellrund::shim
