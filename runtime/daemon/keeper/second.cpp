#include "daemon/keeper/second.hpp"

#include "base/process.hpp"
#include "daemon/keeper/probe.hpp"

namespace cellrund::daemon::keeper {
namespace {

constexpr std::chrono::seconds kFollowTimeout{60};  // the first one may be starting containerd right now
constexpr std::chrono::milliseconds kLookAgain{200};
constexpr std::chrono::seconds kProbeTimeout{5};

}  // namespace

base::Result<std::optional<Lock>> acquire_or_follow(const Config& config, ReadyReport& report) {
  FolderWatch folder = CR_TRY(FolderWatch::create(config.run_dir));
  const base::Deadline deadline = base::Deadline::after(kFollowTimeout);
  while (!deadline.expired()) {
    auto lock = CR_TRY(Lock::try_acquire(config.run_dir));
    if (lock.has_value()) {
      return lock;
    }
    const auto other = read_keeper_state(config.run_dir);
    if (other.ok() && base::is_alive(other->process)) {
      if (other->arguments != to_arguments(config)) {
        return base::Error(base::Errc::kFailedPrecondition, "a keeper of another configuration (pid " +
                                                                std::to_string(other->process.pid) + ") holds " +
                                                                config.run_dir + "; end it with --stop first");
      }
      const auto containerd = read_containerd_state(config.run_dir);
      if (containerd.ok() &&
          probe(containerd->socket, containerd->process.pid, base::Deadline::after(kProbeTimeout)) == Answer::kServes) {
        report.serving(other->process, *containerd);
        return std::optional<Lock>{};
      }
    }
    CR_CHECK(folder.wait(base::Deadline::after(kLookAgain)));
  }
  return base::Error(base::Errc::kDeadlineExceeded, "another keeper holds " + config.run_dir + " and does not serve");
}

}  // namespace cellrund::daemon::keeper
