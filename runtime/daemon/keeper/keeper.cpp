#include "daemon/keeper/keeper.hpp"

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "base/file.hpp"
#include "base/json.hpp"
#include "base/log.hpp"
#include "daemon/keeper/containerd_process.hpp"
#include "daemon/keeper/probe.hpp"

namespace cellrund::daemon::keeper {
namespace {

namespace log = base::log;

constexpr std::chrono::seconds kAdoptTimeout{10};  // for one that is there already
constexpr std::chrono::seconds kStartTimeout{60};  // a large database and a slow disk
constexpr std::chrono::seconds kStopTimeout{15};
constexpr std::chrono::milliseconds kConnectInterval{200};
constexpr std::chrono::seconds kProbeInterval{15};
constexpr std::chrono::seconds kProbeTimeout{5};
constexpr int kSilentProbesUntilHung = 3;
constexpr std::chrono::milliseconds kFirstBackoff{100};
constexpr std::chrono::seconds kLongestBackoff{10};
constexpr std::chrono::seconds kLongLife{60};  // after which a death is no longer part of a series

std::string folder_of(const std::string& path) {
  return path.substr(0, std::max<std::size_t>(path.rfind('/'), 1));
}

std::string name(const base::PidFd& process) {
  return "containerd pid=" + std::to_string(process.id().pid);
}

// containerd too, when it has ended: its pidfd still tells that.
void reap_children() {
  siginfo_t info{};
  do {
    info.si_pid = 0;
  } while (::waitid(P_ALL, 0, &info, WEXITED | WNOHANG) == 0 && info.si_pid != 0);
}

}  // namespace

void ReadyReport::tell(const std::string& line) {
  if (fd_.valid()) {
    (void)base::write_all(fd_.get(), base::as_bytes(line));  // whoever asked may have given up
    fd_.reset();
  }
}

void ReadyReport::serving(const base::ProcessId& keeper, const ContainerdState& containerd) {
  // Two lines, each as it stands in its file.
  tell(encode(KeeperState{keeper, {}}) + encode(containerd));
}

void ReadyReport::failed(const base::Error& error) {
  tell(base::json::write(base::json::Object{{"error", error.message()}}) + "\n");
}

base::Result<Keeper> Keeper::create(Config config, Lock lock, ReadyReport& report) {
  // A shim is an orphan by the time it ends. Some hosts' PID 1 reaps orphans once in a second only, and the scan for
  // residue has to wait until nothing is left of a process.
  if (::prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0) {
    return base::Error::from_errno("prctl PR_SET_CHILD_SUBREAPER");
  }
  sigset_t mask;
  (void)::sigemptyset(&mask);
  for (const int signo : {SIGTERM, SIGINT, SIGHUP, SIGCHLD}) {
    (void)::sigaddset(&mask, signo);
  }
  if (::sigprocmask(SIG_BLOCK, &mask, nullptr) != 0) {
    return base::Error::from_errno("sigprocmask");
  }
  base::UniqueFd signals(::signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals) {
    return base::Error::from_errno("signalfd");
  }
  CR_CHECK(base::make_dirs(folder_of(config.socket), 0755));
  FolderWatch sockets = CR_TRY(FolderWatch::create(folder_of(config.socket)));
  CR_CHECK(lock.write(KeeperState{CR_TRY(base::process_id(::getpid())), to_arguments(config)}));
  return Keeper(std::move(config), std::move(lock), report, std::move(signals), std::move(sockets));
}

Keeper::Wake Keeper::wait(base::Deadline deadline, bool for_sockets) {
  for (;;) {
    std::array<pollfd, 3> polls{{{signals_.get(), POLLIN, 0},
                                 {containerd_.has_value() ? containerd_->fd() : -1, POLLIN, 0},
                                 {for_sockets ? sockets_.fd() : -1, POLLIN, 0}}};
    if (::poll(polls.data(), polls.size(), deadline.poll_timeout_ms()) <= 0) {
      return Wake::kTick;
    }
    signalfd_siginfo info{};
    if (polls[0].revents != 0 && ::read(signals_.get(), &info, sizeof info) == sizeof info) {
      if (info.ssi_signo == SIGHUP) {
        return Wake::kCheck;
      }
      if (info.ssi_signo != SIGCHLD) {
        stopping_ = true;
        return Wake::kStop;
      }
      reap_children();
    }
    if (polls[1].revents != 0) {
      return Wake::kExited;
    }
    if (polls[2].revents != 0) {
      sockets_.drain();
      return Wake::kChanged;
    }
  }
}

base::Status Keeper::await_answer(base::Deadline deadline) {
  for (;;) {
    // SIGHUP has its answer here, too: we are checking already.
    const base::Deadline attempt =
        base::Deadline::after(std::min<base::Nanoseconds>(kProbeTimeout, deadline.remaining()));
    if (probe(config_.socket, containerd_->id().pid, attempt) == Answer::kServes) {
      return base::ok();
    }
    const base::Deadline pause =
        base::Deadline::after(std::min<base::Nanoseconds>(kConnectInterval, deadline.remaining()));
    switch (wait(pause, true)) {
      case Wake::kExited:
        return base::Error(base::Errc::kUnavailable,
                           "containerd ended before it answered; its log is " + containerd_log_path(config_.run_dir));
      case Wake::kStop:
        return base::Error(base::Errc::kCancelled, "told to stop");
      case Wake::kCheck:
      case Wake::kTick:
      case Wake::kChanged:
        break;
    }
    if (deadline.expired()) {
      return base::Error(base::Errc::kDeadlineExceeded, "containerd does not answer on " + config_.socket +
                                                            "; its log is " + containerd_log_path(config_.run_dir));
    }
  }
}

base::Status Keeper::adopt() {
  if (const auto published = read_containerd_state(config_.run_dir); published.ok()) {
    generation_ = published->generation;
  }
  std::vector<base::PidFd> found = CR_TRY(find_containerds(config_.run_dir));
  // The one that serves is kept. Any other waits for ever for the first one's database.
  const base::Deadline deadline = base::Deadline::after(kAdoptTimeout);
  while (!found.empty() && !containerd_.has_value() && !stopping_ && !deadline.expired()) {
    for (base::PidFd& process : found) {
      const base::Deadline attempt =
          base::Deadline::after(std::min<base::Nanoseconds>(kProbeTimeout, deadline.remaining()));
      if (probe(config_.socket, process.id().pid, attempt) == Answer::kServes) {
        log::info("step=adopt " + name(process));
        containerd_ = std::move(process);
        break;
      }
    }
    if (!containerd_.has_value()) {
      (void)wait(base::Deadline::after(std::min<base::Nanoseconds>(kConnectInterval, deadline.remaining())), true);
    }
  }
  for (const base::PidFd& process : found) {
    if (process.valid()) {
      log::warn("step=adopt " + name(process) + " does not answer: killing it");
      CR_CHECK(kill_containerd(process));
    }
  }
  return base::ok();
}

base::Status Keeper::publish() {
  const ContainerdState state{containerd_->id(), config_.socket, generation_};
  CR_CHECK(base::write_file_atomic(containerd_state_path(config_.run_dir), encode(state), 0644));
  log::info("step=serve " + name(*containerd_) + " generation=" + std::to_string(generation_));
  report_->serving(CR_TRY(base::process_id(::getpid())), state);
  return base::ok();
}

base::Status Keeper::watch() {
  int silent = 0;
  for (;;) {
    const Wake wake = wait(base::Deadline::after(kProbeInterval), false);
    if (wake == Wake::kExited || wake == Wake::kStop) {
      return base::ok();
    }
    if (probe(config_.socket, containerd_->id().pid, base::Deadline::after(kProbeTimeout)) == Answer::kServes) {
      silent = 0;
      continue;
    }
    // Who sends SIGHUP has waited for an answer already.
    if (wake == Wake::kCheck || ++silent >= kSilentProbesUntilHung) {
      log::warn("step=check " + name(*containerd_) + " does not answer: killing it");
      return kill_containerd(*containerd_);
    }
  }
}

base::Status Keeper::run() {
  CR_CHECK(adopt());
  base::Nanoseconds backoff = kFirstBackoff;
  bool served = false;
  while (!stopping_) {
    if (!containerd_.has_value()) {
      containerd_ = CR_TRY(start_containerd(config_));
      ++generation_;
      log::info("step=start " + name(*containerd_));
    }
    const base::BootTime since = base::BootTime::now();
    auto answered = await_answer(base::Deadline::after(kStartTimeout));
    if (answered.ok()) {
      CR_CHECK(publish());
      served = true;
      CR_CHECK(watch());
    } else if (!stopping_) {
      log::error(answered.error().message());
      CR_CHECK(kill_containerd(*containerd_));
      if (!served) {
        return answered;
      }
    }
    if (stopping_) {
      break;
    }
    log::warn("step=watch " + name(*containerd_) + " ended");
    CR_CHECK(kill_containerd(*containerd_));  // reaps it
    containerd_.reset();
    backoff = base::BootTime::now() - since > kLongLife ? base::Nanoseconds(kFirstBackoff) : backoff;
    const base::Deadline again = base::Deadline::after(backoff);
    while (!stopping_ && !again.expired()) {
      (void)wait(again, false);
    }
    backoff = std::min<base::Nanoseconds>(backoff * 2, kLongestBackoff);
  }
  return shut_down();
}

base::Status Keeper::shut_down() {
  base::Status failure = base::ok();
  if (containerd_.has_value()) {
    log::info("step=stop " + name(*containerd_));
    failure = stop_containerd(*containerd_, base::Deadline::after(kStopTimeout));
  }
  if (failure.ok()) {
    failure = remove_leftovers(config_.run_dir);
  }
  auto unlocked = lock_.remove();
  return failure.ok() ? std::move(unlocked) : std::move(failure);
}

base::Status remove_leftovers(const std::string& run_dir) {
  base::Status failure = base::ok();
  const auto attempt = [&](base::Status status) {
    if (!status.ok() && failure.ok()) {
      failure = std::move(status);
    }
  };
  // After a SIGKILL the sockets are still there.
  if (const auto state = read_containerd_state(run_dir); state.ok()) {
    attempt(base::remove_file(state->socket));
    attempt(base::remove_file(state->socket + ".ttrpc"));
  }
  attempt(base::remove_file(containerd_config_path(run_dir)));
  attempt(base::remove_file(containerd_state_path(run_dir)));
  return failure;
}

}  // namespace cellrund::daemon::keeper
