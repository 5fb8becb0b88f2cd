// Control groups of a cell on any layout: one v2 tree, v1 hierarchies, or both (hybrid).
//
// One cell is one path below every hierarchy that matters: the v2 tree (kill, freeze, events, and whatever controllers
// it has) and the v1 hierarchies of memory, pids and cpu where the kernel has them there. Nothing here knows of jobs.
// Values without state of their own but paths and identities: safe to use from any thread.
// Sources: kernel Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/*.rst, cgroups(7).
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.hpp"
#include "base/fd.hpp"
#include "base/file.hpp"
#include "base/process.hpp"
#include "base/result.hpp"
#include "model/inventory.hpp"

namespace cellrund::host {

// 0 means no limit.
struct CgroupLimits {
  std::uint64_t memory_bytes = 0;
  std::uint64_t pids = 0;
  std::uint64_t cpu_millis = 0;
};

struct CgroupUsage {
  std::optional<std::uint64_t> memory_peak_bytes;
  std::optional<std::uint64_t> pids_peak;  // v2 since 6.1 (pids.peak); absent on v1
  std::optional<std::uint64_t> cpu_usage_us;
  std::uint64_t oom_kills = 0;     // by the kernel's OOM killer inside the group
  std::uint64_t pids_refused = 0;  // forks refused by the pids limit
};

// What a group uses at this moment. A member is 0 where no hierarchy counts it; a limit of 0 is none.
struct CgroupLoad {
  std::uint64_t memory_bytes = 0;
  std::uint64_t memory_limit_bytes = 0;
  std::uint64_t memory_anon_bytes = 0;
  std::uint64_t memory_file_bytes = 0;
  std::uint64_t memory_inactive_file_bytes = 0;
  std::uint64_t oom_kills = 0;
  std::uint64_t cpu_usage_us = 0;
  std::uint64_t cpu_user_us = 0;
  std::uint64_t cpu_system_us = 0;
  std::uint64_t pids = 0;
  std::uint64_t pids_limit = 0;
};

// One mounted hierarchy.
struct Hierarchy {
  std::string mount_point;
  bool v2 = false;
  std::vector<std::string> controllers;  // v1: of the mount; v2: cgroup.controllers of the root
};

// A cell's directories in all hierarchies, by path and identity. Does not own them: a cell outlives the process that
// made it, so only destroy() removes anything.
class Cgroup {
 public:
  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  // One kCgroup item per directory, identity "dev:ino".
  [[nodiscard]] model::Inventory items() const;
  // What the kernel really enforces, read back after writing; a member is 0 where no controller could be set.
  [[nodiscard]] const CgroupLimits& enforced() const noexcept { return enforced_; }

  // The v2 directory for CLONE_INTO_CGROUP (clone(2)); kUnimplemented when there is no v2 tree.
  [[nodiscard]] base::Result<base::UniqueFd> open_v2() const;
  // Moves a process into every hierarchy, or into the v1 ones only for a child that was born into the v2 group.
  base::Status add(pid_t pid) const;
  base::Status add_v1(pid_t pid) const;
  // Every member of every hierarchy, without duplicates, descendants included.
  [[nodiscard]] base::Result<std::vector<pid_t>> members() const;
  // Whether each hierarchy's group is the one that was made, and `pid` its one member, nobody being in a group below. In words
  // what is not so; nullopt: it is.
  [[nodiscard]] base::Result<std::optional<std::string>> deviation_of_only_member(pid_t pid) const;
  [[nodiscard]] CgroupUsage usage() const;
  [[nodiscard]] CgroupLoad load() const;

  // SIGKILL to every member, and to what they fork meanwhile. Success: no member is left at the deadline's latest.
  base::Status kill(base::Deadline deadline) const;
  // kill(), then removes the directories and their descendants. Never stops at the first failure.
  // Postcondition when the list is empty: no directory of this group exists in any hierarchy. A directory that bears
  // the name but another identity is left alone and reported.
  [[nodiscard]] std::vector<base::Error> destroy(base::Deadline deadline) const;

 private:
  friend class CgroupTree;
  struct Directory {
    std::string path;  // absolute
    bool v2 = false;
    std::vector<std::string> controllers;
    base::FileId id;
  };
  Cgroup(std::string path, std::vector<Directory> directories)
      : path_(std::move(path)), directories_(std::move(directories)) {}
  base::Status apply(const CgroupLimits& limits);

  std::string path_;
  std::vector<Directory> directories_;  // v2 first
  CgroupLimits enforced_;
};

class CgroupTree {
 public:
  // What /proc/self/mountinfo has. Cells live below the roots of the hierarchies.
  static base::Result<CgroupTree> discover();

  [[nodiscard]] const std::vector<Hierarchy>& hierarchies() const noexcept { return hierarchies_; }
  [[nodiscard]] bool has_v2() const noexcept;
  // The directories that create(path) will make, without identity: to be journalled before it.
  [[nodiscard]] model::Inventory intended(std::string_view path) const;

  // `path` such as "/cellrun/<tag>/<uid>". Missing parents are made, and in the v2 tree get their controllers enabled.
  // Fails with kAlreadyExists when any directory is there already. On failure, what was made is removed again.
  base::Result<Cgroup> create(std::string_view path, const CgroupLimits& limits) const;
  // What exists of `path`, after a restart. kNotFound when no hierarchy has it.
  base::Result<Cgroup> adopt(std::string_view path) const;
  // Removes the parents of `path` that are empty, e.g. "/cellrun/<tag>" and "/cellrun". Parents in use stay, silently.
  void remove_empty_parents(std::string_view path) const;

 private:
  explicit CgroupTree(std::vector<Hierarchy> hierarchies) : hierarchies_(std::move(hierarchies)) {}

  std::vector<Hierarchy> hierarchies_;  // v2 first
};

// The cgroup mounts in a mountinfo text (proc(5)), one entry per hierarchy, v2 first, v1 only with memory, pids or cpu.
[[nodiscard]] std::vector<Hierarchy> parse_cgroup_mounts(std::string_view mountinfo);

}  // namespace cellrund::host
