// Cgroup: limits, membership, and the end of a group.
#include "host/cgroup.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <set>

#include "host/cgroup_files.hpp"

namespace cellrund::host {
namespace {

using base::Deadline;
using base::Errc;
using base::Error;
using base::Result;
using base::Status;
using base::UniqueFd;

constexpr std::size_t kMaxProcsFile = 8UL * 1024 * 1024;
constexpr std::size_t kMaxChildren = 1024;
constexpr int kMaxDepth = 8;
constexpr std::uint64_t kCpuPeriodUs = 100'000;  // the kernel's default
constexpr std::uint64_t kMinQuotaUs = 1000;      // the kernel's minimum

// Writes a limit and reads it back. The kernel rounds memory down to pages, so `slack` below the wish is accepted.
Result<std::uint64_t> set_and_read_back(const std::string& path, std::uint64_t wish, std::uint64_t slack) {
  CR_CHECK(base::write_kernel_file(path, std::to_string(wish)));
  const std::optional<std::uint64_t> now = read_number(path);
  if (!now.has_value() || *now > wish || wish - *now > slack) {
    return Error(Errc::kDataLoss, path + ": the kernel did not keep " + std::to_string(wish));
  }
  return *now;
}

Status collect_members(const std::string& folder, int depth, std::set<pid_t>& into) {
  auto text = base::read_file(folder + "/cgroup.procs", kMaxProcsFile);
  if (!text.ok()) {
    // The folder went away meanwhile, and its members with it.
    const int error = text.error().os_errno();
    return error == ENOENT || error == ENODEV ? base::ok() : Status(std::move(text).error());
  }
  std::string_view rest = *text;
  while (!rest.empty()) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    const std::optional<std::uint64_t> pid = parse_number(line);
    if (pid.value_or(0) != 0) {  // 0: a process that our pid namespace does not see
      into.insert(static_cast<pid_t>(*pid));
    }
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
  }
  if (depth == 0) {
    return base::ok();
  }
  const auto names = base::list_dir(folder, kMaxChildren);
  for (const std::string& name : names.ok() ? *names : std::vector<std::string>{}) {
    struct stat st {};
    const std::string child = folder + "/" + name;
    if (::lstat(child.c_str(), &st) == 0 && S_ISDIR(st.st_mode)) {
      CR_CHECK(collect_members(child, depth - 1, into));
    }
  }
  return base::ok();
}

// Removes a directory and its descendants, deepest first. rmdir(2) of a cgroup fails with EBUSY while it has members.
Status remove_group(const std::string& folder, int depth) {
  if (::rmdir(folder.c_str()) == 0 || errno == ENOENT) {
    return base::ok();
  }
  const int error = errno;
  if ((error != EBUSY && error != ENOTEMPTY) || depth == 0) {
    return Error::from_errno("rmdir " + folder, error);
  }
  const auto names = base::list_dir(folder, kMaxChildren);
  for (const std::string& name : names.ok() ? *names : std::vector<std::string>{}) {
    struct stat st {};
    const std::string child = folder + "/" + name;
    if (::lstat(child.c_str(), &st) == 0 && S_ISDIR(st.st_mode)) {
      CR_CHECK(remove_group(child, depth - 1));
    }
  }
  if (::rmdir(folder.c_str()) == 0 || errno == ENOENT) {
    return base::ok();
  }
  return Error::from_errno("rmdir " + folder);
}

// A v2 group tells when its last member is gone: cgroup.events wakes poll(2) with POLLPRI (cgroup-v2.rst).
Status wait_unpopulated(const std::string& folder, Deadline deadline) {
  auto events = base::open_file(folder + "/cgroup.events", O_RDONLY);
  if (!events.ok()) {
    return events.error().code() == Errc::kNotFound ? base::ok() : Status(std::move(events).error());
  }
  for (;;) {
    if (::lseek(events->get(), 0, SEEK_SET) < 0) {
      return Error::from_errno("lseek " + folder + "/cgroup.events");
    }
    const auto text = base::read_fd(events->get(), 4096);
    if (!text.ok() || text->find("populated 0") != std::string::npos) {
      return base::ok();  // unreadable: the directory is gone
    }
    pollfd p{events->get(), POLLPRI, 0};
    const int n = ::poll(&p, 1, deadline.poll_timeout_ms());
    if (n == 0) {
      return Error(Errc::kDeadlineExceeded, folder + " still has members");
    }
    if (n < 0 && errno != EINTR) {
      return Error::from_errno("poll " + folder + "/cgroup.events");
    }
  }
}

// v1 has no such event: a timer between two looks, on an fd like every other wait.
Status wait_a_moment(Deadline deadline) {
  constexpr base::Nanoseconds kPause = std::chrono::milliseconds(2);
  const UniqueFd timer = CR_TRY(base::boot_timer(base::BootTime::now() + std::min(kPause, deadline.remaining())));
  (void)CR_TRY(base::wait_readable(timer.get(), deadline));
  return base::ok();
}

}  // namespace

model::Inventory Cgroup::items() const {
  model::Inventory out;
  for (const Directory& directory : directories_) {
    out.push_back({model::ItemKind::kCgroup, directory.path,
                   std::to_string(directory.id.dev) + ":" + std::to_string(directory.id.ino)});
  }
  return out;
}

Status Cgroup::apply(const CgroupLimits& limits) {
  const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  for (const Directory& directory : directories_) {
    const auto has = [&](std::string_view controller) {
      return std::find(directory.controllers.begin(), directory.controllers.end(), controller) !=
             directory.controllers.end();
    };
    if (limits.memory_bytes != 0 && has("memory")) {
      const std::string file = directory.path + (directory.v2 ? "/memory.max" : "/memory.limit_in_bytes");
      enforced_.memory_bytes = CR_TRY(set_and_read_back(file, limits.memory_bytes, page - 1));
      // No swap on top of the limit, where the kernel accounts swap at all.
      const std::string swap = directory.path + (directory.v2 ? "/memory.swap.max" : "/memory.memsw.limit_in_bytes");
      if (base::exists(swap)) {
        (void)CR_TRY(set_and_read_back(swap, directory.v2 ? 0 : limits.memory_bytes, page - 1));
      } else if (!directory.v2) {
        (void)CR_TRY(set_and_read_back(directory.path + "/memory.swappiness", 0, 0));
      }
      // A group out of memory dies as a whole: half a cell would only hang.
      if (const std::string whole = directory.path + "/memory.oom.group"; directory.v2 && base::exists(whole)) {
        (void)CR_TRY(set_and_read_back(whole, 1, 0));
      }
    }
    if (limits.pids != 0 && has("pids")) {
      enforced_.pids = CR_TRY(set_and_read_back(directory.path + "/pids.max", limits.pids, 0));
    }
    if (limits.cpu_millis != 0 && has("cpu")) {
      const std::uint64_t quota = std::max(kMinQuotaUs, limits.cpu_millis * kCpuPeriodUs / 1000);
      if (directory.v2) {
        const std::string wish = std::to_string(quota) + " " + std::to_string(kCpuPeriodUs);
        const std::string file = directory.path + "/cpu.max";
        CR_CHECK(base::write_kernel_file(file, wish));
        if (CR_TRY(base::read_file(file, 4096)) != wish + "\n") {
          return Error(Errc::kDataLoss, file + ": the kernel did not keep " + wish);
        }
      } else {
        (void)CR_TRY(set_and_read_back(directory.path + "/cpu.cfs_period_us", kCpuPeriodUs, 0));
        (void)CR_TRY(set_and_read_back(directory.path + "/cpu.cfs_quota_us", quota, 0));
      }
      enforced_.cpu_millis = quota * 1000 / kCpuPeriodUs;
    }
  }
  return base::ok();
}

Result<UniqueFd> Cgroup::open_v2() const {
  for (const Directory& directory : directories_) {
    if (directory.v2) {
      UniqueFd fd = CR_TRY(base::open_file(directory.path, O_RDONLY | O_DIRECTORY));
      if (CR_TRY(base::file_id(fd.get())) != directory.id) {
        return Error(Errc::kFailedPrecondition, directory.path + " is another cgroup now");
      }
      return fd;
    }
  }
  return Error(Errc::kUnimplemented, "this host has no cgroup v2 tree");
}

Status Cgroup::add(pid_t pid) const {
  for (const Directory& directory : directories_) {
    CR_CHECK(base::write_kernel_file(directory.path + "/cgroup.procs", std::to_string(pid)).context("join cgroup"));
  }
  return base::ok();
}

Status Cgroup::add_v1(pid_t pid) const {
  for (const Directory& directory : directories_) {
    if (!directory.v2) {
      CR_CHECK(base::write_kernel_file(directory.path + "/cgroup.procs", std::to_string(pid)).context("join cgroup"));
    }
  }
  return base::ok();
}

Result<std::vector<pid_t>> Cgroup::members() const {
  std::set<pid_t> pids;
  for (const Directory& directory : directories_) {
    CR_CHECK(collect_members(directory.path, kMaxDepth, pids));
  }
  return std::vector<pid_t>(pids.begin(), pids.end());
}

Result<std::optional<std::string>> Cgroup::deviation_of_only_member(pid_t pid) const {
  for (const Directory& directory : directories_) {
    if (CR_TRY(base::file_id(directory.path)) != directory.id) {
      return std::optional(directory.path + " is another cgroup now");
    }
    std::set<pid_t> pids;
    CR_CHECK(collect_members(directory.path, kMaxDepth, pids));
    if (!pids.contains(pid)) {
      return std::optional("it is not in cgroup " + directory.path);
    }
    if (pids.size() != 1) {
      return std::optional("it is not alone in cgroup " + directory.path);
    }
  }
  return std::optional<std::string>();
}

CgroupUsage Cgroup::usage() const {
  CgroupUsage out;
  const auto keep_first = [](std::optional<std::uint64_t>& into, std::optional<std::uint64_t> value) {
    if (!into.has_value()) {
      into = value;
    }
  };
  for (const Directory& directory : directories_) {
    const std::string& at = directory.path;
    keep_first(out.memory_peak_bytes, read_number(at + (directory.v2 ? "/memory.peak" : "/memory.max_usage_in_bytes")));
    keep_first(out.pids_peak, read_number(at + "/pids.peak"));
    keep_first(out.cpu_usage_us, read_keyed(at + "/cpu.stat", "usage_usec"));
    if (const auto ns = read_number(at + "/cpuacct.usage"); ns.has_value()) {
      keep_first(out.cpu_usage_us, *ns / 1000);
    }
    out.oom_kills += read_keyed(at + (directory.v2 ? "/memory.events" : "/memory.oom_control"), "oom_kill").value_or(0);
    out.pids_refused += read_keyed(at + "/pids.events", "max").value_or(0);
  }
  return out;
}

Status Cgroup::kill(Deadline deadline) const {
  for (;;) {
    for (const Directory& directory : directories_) {
      // One atomic kill where the kernel has it (5.14): nothing that forks can outrun it.
      const std::string file = directory.path + "/cgroup.kill";
      if (directory.v2 && base::exists(file)) {
        (void)base::write_kernel_file(file, "1");  // the listing below tells whether it worked
      }
    }
    const std::vector<pid_t> listed = CR_TRY(members());
    if (listed.empty()) {
      return base::ok();
    }
    std::vector<base::PidFd> open;
    for (const pid_t pid : listed) {
      auto fd = base::PidFd::open(pid);
      if (fd.ok()) {
        open.push_back(std::move(*fd));
      }
    }
    // A pid may have been recycled between the listing and its pidfd; whoever is still listed now is a member indeed.
    const std::vector<pid_t> still = CR_TRY(members());
    std::erase_if(open, [&](const base::PidFd& process) {
      return !std::binary_search(still.begin(), still.end(), process.id().pid);
    });
    for (const base::PidFd& process : open) {
      CR_CHECK(process.signal(SIGKILL).context("kill cgroup " + path_));
    }
    for (const base::PidFd& process : open) {
      if (!CR_TRY(process.wait_exit(deadline))) {
        return Error(Errc::kDeadlineExceeded,
                     "kill cgroup " + path_ + ": process " + std::to_string(process.id().pid) + " does not end");
      }
    }
    if (deadline.expired()) {
      return Error(Errc::kDeadlineExceeded, "kill cgroup " + path_ + ": it still has members");
    }
  }
}

std::vector<Error> Cgroup::destroy(Deadline deadline) const {
  std::vector<Error> failures;
  const auto note = [&](Status status) {
    if (!status.ok()) {
      failures.push_back(std::move(status).error().context("destroy cgroup"));
    }
  };
  // Only what still is what we made: a path alone could be another cell's by now.
  Cgroup ours(path_, {});
  for (const Directory& directory : directories_) {
    auto now = base::file_id(directory.path);
    if (now.ok() && *now == directory.id) {
      ours.directories_.push_back(directory);
    } else if (now.ok()) {
      failures.emplace_back(Errc::kFailedPrecondition, "destroy cgroup: " + directory.path + " is another one now");
    } else if (now.error().code() != Errc::kNotFound) {
      failures.push_back(std::move(now).error().context("destroy cgroup"));
    }
  }
  note(ours.kill(deadline));
  for (const Directory& directory : ours.directories_) {
    if (directory.v2) {
      note(wait_unpopulated(directory.path, deadline));
    }
    for (;;) {
      auto removed = remove_group(directory.path, kMaxDepth);
      if (!removed.ok() && removed.error().os_errno() == EBUSY && !deadline.expired()) {
        auto waited = wait_a_moment(deadline);
        if (waited.ok()) {
          continue;
        }
      }
      note(std::move(removed));
      break;
    }
  }
  return failures;
}

}  // namespace cellrund::host
