// Cgroup: what it uses now, from whichever hierarchy counts it.
#include <algorithm>

#include "host/cgroup.hpp"
#include "host/cgroup_files.hpp"

namespace cellrund::host {
namespace {

// v1 writes a huge number, rounded down to pages, where no limit is set.
constexpr std::uint64_t kNoLimit = 1ULL << 62U;

std::uint64_t limit(const std::string& path) {
  const std::uint64_t value = read_number(path).value_or(0);  // "max" is no number
  return value >= kNoLimit ? 0 : value;
}

void add_memory(const std::string& at, bool v2, CgroupLoad& load) {
  load.memory_bytes = read_number(at + (v2 ? "/memory.current" : "/memory.usage_in_bytes")).value_or(0);
  load.memory_limit_bytes = limit(at + (v2 ? "/memory.max" : "/memory.limit_in_bytes"));
  const std::string stat = at + "/memory.stat";
  load.memory_anon_bytes = read_keyed(stat, v2 ? "anon" : "total_rss").value_or(0);
  load.memory_file_bytes = read_keyed(stat, v2 ? "file" : "total_cache").value_or(0);
  load.memory_inactive_file_bytes = read_keyed(stat, v2 ? "inactive_file" : "total_inactive_file").value_or(0);
  load.oom_kills = read_keyed(at + (v2 ? "/memory.events" : "/memory.oom_control"), "oom_kill").value_or(0);
}

}  // namespace

CgroupLoad Cgroup::load() const {
  CgroupLoad load;
  for (const Directory& directory : directories_) {
    const std::string& at = directory.path;
    const auto has = [&](std::string_view controller) {
      return std::find(directory.controllers.begin(), directory.controllers.end(), controller) !=
             directory.controllers.end();
    };
    if (has("memory")) {
      add_memory(at, directory.v2, load);
    }
    if (has("pids")) {
      load.pids = read_number(at + "/pids.current").value_or(0);
      load.pids_limit = limit(at + "/pids.max");
    }
    if (directory.v2) {  // kept without the cpu controller too
      load.cpu_usage_us = read_keyed(at + "/cpu.stat", "usage_usec").value_or(0);
      load.cpu_user_us = read_keyed(at + "/cpu.stat", "user_usec").value_or(0);
      load.cpu_system_us = read_keyed(at + "/cpu.stat", "system_usec").value_or(0);
    } else if (load.cpu_usage_us == 0) {  // cpuacct is mounted with cpu as a rule
      load.cpu_usage_us = read_number(at + "/cpuacct.usage").value_or(0) / 1000;
      load.cpu_user_us = read_number(at + "/cpuacct.usage_user").value_or(0) / 1000;
      load.cpu_system_us = read_number(at + "/cpuacct.usage_sys").value_or(0) / 1000;
    }
  }
  return load;
}

}  // namespace cellrund::host
