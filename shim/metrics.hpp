// A cell's load as containerd's metrics. The type is always that of cgroup v2, whichever hierarchy the host counts in: it
// is the one that every reader since containerd 1.5 knows and that has no field per processor.
#pragma once

#include <string>
#include <string_view>

#include "host/cgroup.hpp"

namespace cellrund::shim {

inline constexpr std::string_view kMetricsType = "io.containerd.cgroups.v2.Metrics";

[[nodiscard]] std::string encode_metrics(const host::CgroupLoad& load);

}  // namespace cellrund::shim
