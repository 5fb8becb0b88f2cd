#include "shim/guest/namespace_init.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <optional>

#include "base/file.hpp"
#include "base/process.hpp"
#include "shim/guest/privileges.hpp"
#include "shim/guest/rootfs.hpp"
#include "shim/guest/seccomp.hpp"
#include "shim/wire/messages.hpp"

namespace cellrund::guest {
namespace {

using base::Error;
using wire::Exit;
using wire::ExitKind;

constexpr int kNotFound = 127;
constexpr int kCannotInvoke = 126;
constexpr std::string_view kDefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

void report(int ctl, unsigned char kind) noexcept { (void)::send(ctl, &kind, 1, MSG_NOSIGNAL); }

// The agent is the reader; when it is gone, so are we in the next moment.
void report_end(int ctl, const Exit& exit) {
  base::Bytes message{kReportEnded};
  const base::Bytes encoded = wire::encode(exit);
  message.insert(message.end(), encoded.begin(), encoded.end());
  (void)::send(ctl, message.data(), message.size(), MSG_NOSIGNAL);
}

Exit setup_failed(const Error& error) {
  Exit exit;
  exit.kind = ExitKind::kSetupFailed;
  exit.message = error.message();
  return exit;
}

// What the workload's process tells its parent over a close-on-exec pipe when there was no exec.
struct LaunchFailure {
  bool in_exec = false;
  int error = 0;
  std::array<char, 200> message{};
};

std::string_view search_path(const wire::Workload& workload) {
  constexpr std::string_view kPrefix = "PATH=";
  for (const std::string& entry : workload.env) {
    if (entry.starts_with(kPrefix)) {
      return std::string_view(entry).substr(kPrefix.size());
    }
  }
  return kDefaultPath;
}

// execve(2), with the search of execvp(3) but the workload's PATH and no fallback to a shell. Returns errno.
int exec_workload(const wire::Workload& workload) {
  const std::vector<char*> argv = base::c_strings(workload.args);
  const std::vector<char*> env = base::c_strings(workload.env);
  const std::string& name = workload.args.front();
  if (name.find('/') != std::string::npos) {
    (void)::execve(name.c_str(), argv.data(), env.data());
    return errno;
  }
  int result = ENOENT;
  std::string_view path = search_path(workload);
  while (true) {
    const std::size_t colon = path.find(':');
    const std::string_view folder = path.substr(0, colon);
    const std::string candidate = folder.empty() ? name : std::string(folder) + "/" + name;
    (void)::execve(candidate.c_str(), argv.data(), env.data());
    if (errno == EACCES) {
      result = EACCES;  // go on looking, as execvp(3) does, but remember
    } else if (errno != ENOENT && errno != ENOTDIR) {
      return errno;
    }
    if (colon == std::string_view::npos) {
      return result;
    }
    path.remove_prefix(colon + 1);
  }
}

base::Status take_stdio(const WorkloadStdio& stdio) {
  const std::array<int, 3> sources{stdio.in.get(), stdio.out.get(), stdio.err.get()};
  for (int target = 0; target < 3; ++target) {
    // The sources are above 2: 0, 1 and 2 of cell-init are always open.
    if (::dup2(sources[static_cast<std::size_t>(target)], target) < 0) {
      return Error::from_errno("dup2 stdio");
    }
  }
  return base::ok();
}

// Back to what a freshly executed program expects; cell-init blocks and ignores signals and is favoured by schedulers.
base::Status reset_process_attributes(const wire::Workload& workload) {
  (void)::signal(SIGPIPE, SIG_DFL);  // the only one that cell-init changes, and it is started with defaults
  sigset_t none;
  (void)::sigemptyset(&none);
  if (::sigprocmask(SIG_SETMASK, &none, nullptr) != 0) {
    return Error::from_errno("sigprocmask");
  }
  (void)::setpriority(PRIO_PROCESS, 0, 0);  // raising the nice value is always allowed
  // Only in the guest was it lowered; there this succeeds, and elsewhere writing 0 over 0 is no matter.
  (void)base::write_kernel_file("/proc/self/oom_score_adj", "0");
  (void)::umask(static_cast<mode_t>(workload.umask));
  if (::setsid() < 0) {
    return Error::from_errno("setsid");
  }
  return base::ok();
}

base::Status become_workload(const wire::Workload& workload, const WorkloadStdio& stdio) {
  CR_CHECK(take_stdio(stdio));
  CR_CHECK(reset_process_attributes(workload));
  CR_CHECK(set_rlimits(workload));
  if (workload.seccomp) {
    CR_CHECK(install_seccomp());  // while still privileged, so that it works without no_new_privs too
  }
  CR_CHECK(drop_privileges(workload));
  // As the workload's user, so that a folder it may not enter is refused.
  if (::chdir(workload.cwd.c_str()) != 0) {
    return Error::from_errno("chdir to the working directory");
  }
  // Everything of ours ends at exec, the pipe that reports its failure included.
  if (::close_range(3, ~0U, CLOSE_RANGE_CLOEXEC) != 0) {
    return Error::from_errno("close_range");
  }
  return base::ok();
}

[[noreturn]] void run_workload(const wire::Workload& workload, const WorkloadStdio& stdio, int failure_fd) noexcept {
  LaunchFailure failure;
  const base::Status became = become_workload(workload, stdio);
  if (became.ok()) {
    failure.in_exec = true;
    failure.error = exec_workload(workload);
  } else {
    failure.error = became.error().os_errno();
    (void)became.error().message().copy(failure.message.data(), failure.message.size() - 1);
  }
  (void)base::write_all(failure_fd, {reinterpret_cast<const std::uint8_t*>(&failure), sizeof(failure)});
  ::_exit(kCannotInvoke);
}

Exit describe(const LaunchFailure& failure, const wire::Workload& workload) {
  Exit exit;
  if (!failure.in_exec) {
    exit.kind = ExitKind::kSetupFailed;
    exit.message = std::string(failure.message.data());
    return exit;
  }
  const bool missing = failure.error == ENOENT || failure.error == ENOTDIR;
  exit.kind = ExitKind::kExecFailed;
  exit.value = missing ? kNotFound : kCannotInvoke;
  exit.message = Error::from_errno("exec " + workload.args.front().substr(0, 128), failure.error).message();
  return exit;
}

class NamespaceInit {
 public:
  NamespaceInit(const wire::Workload& workload, int ctl, WorkloadStdio stdio)
      : workload_(workload), ctl_(ctl), stdio_(std::move(stdio)) {}

  // How the workload ended; an error when it could not be made ready.
  base::Result<Exit> run() {
    CR_CHECK(build_root(workload_));
    if (::sethostname(workload_.hostname.data(), workload_.hostname.size()) != 0) {
      return Error::from_errno("sethostname");
    }
    sigset_t children;
    (void)::sigemptyset(&children);
    (void)::sigaddset(&children, SIGCHLD);
    if (::sigprocmask(SIG_BLOCK, &children, nullptr) != 0) {
      return Error::from_errno("sigprocmask");
    }
    base::UniqueFd child_signal(::signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!child_signal) {
      return Error::from_errno("signalfd");
    }
    report(ctl_, kReportPrepared);
    while (true) {
      std::array<pollfd, 2> polls{{{ctl_, POLLIN, 0}, {child_signal.get(), POLLIN, 0}}};
      if (::poll(polls.data(), polls.size(), -1) < 0 && errno != EINTR) {
        return Error::from_errno("poll");
      }
      if (polls[0].revents != 0) {
        if (auto ended = CR_TRY(on_command())) {
          return std::move(*ended);
        }
      }
      if (polls[1].revents != 0) {
        signalfd_siginfo info{};
        while (::read(child_signal.get(), &info, sizeof(info)) > 0) {
        }
        if (auto ended = reap()) {
          return std::move(*ended);
        }
      }
    }
  }

 private:
  base::Result<std::optional<Exit>> on_command() {
    unsigned char command = 0;
    const ssize_t n = ::recv(ctl_, &command, 1, 0);
    if (n < 0 && errno == EINTR) {
      return std::optional<Exit>{};
    }
    if (n <= 0) {
      // The agent is gone. In the process lane its own namespace dies with it; be dead in any case.
      ::_exit(1);
    }
    if (command == kStartCommand && workload_pid_ == 0) {
      return launch();
    }
    if (command != kStartCommand && workload_pid_ > 0) {
      (void)::kill(workload_pid_, command);  // it is our unreaped child, so the pid is its own
    }
    return std::optional<Exit>{};
  }

  base::Result<std::optional<Exit>> launch() {
    base::Pipe failure_pipe = CR_TRY(base::make_pipe());
    // fork(2) is safe: this process has one thread.
    workload_pid_ = ::fork();
    if (workload_pid_ < 0) {
      return Error::from_errno("fork workload");
    }
    if (workload_pid_ == 0) {
      run_workload(workload_, stdio_, failure_pipe.write.get());
    }
    stdio_ = WorkloadStdio{};
    failure_pipe.write.reset();
    LaunchFailure failure;
    ssize_t n = 0;
    do {
      n = ::read(failure_pipe.read.get(), &failure, sizeof(failure));
    } while (n < 0 && errno == EINTR);
    if (n != 0) {
      if (n == static_cast<ssize_t>(sizeof(failure))) {
        return std::optional<Exit>(describe(failure, workload_));
      }
      return Error(base::Errc::kUnknown, "launch workload: short failure report");
    }
    report(ctl_, kReportStarted);
    return std::optional<Exit>{};
  }

  std::optional<Exit> reap() {
    int status = 0;
    pid_t pid = 0;
    std::optional<Exit> ended;
    while ((pid = ::waitpid(-1, &status, WNOHANG)) > 0) {
      if (pid == workload_pid_) {
        Exit exit;
        exit.kind = WIFSIGNALED(status) ? ExitKind::kSignaled : ExitKind::kExited;
        exit.value = WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
        ended = std::move(exit);
      }
    }
    return ended;
  }

  const wire::Workload& workload_;
  int ctl_;
  WorkloadStdio stdio_;
  pid_t workload_pid_ = 0;
};

}  // namespace

void run_namespace_init(const wire::Workload& workload, base::UniqueFd ctl, WorkloadStdio stdio) noexcept {
  (void)::prctl(PR_SET_PDEATHSIG, SIGKILL);
  (void)::prctl(PR_SET_NAME, "cell-init");
  const base::Result<Exit> ended = NamespaceInit(workload, ctl.get(), std::move(stdio)).run();
  report_end(ctl.get(), ended.ok() ? *ended : setup_failed(ended.error()));
  ::_exit(0);  // the kernel now kills whatever else lives in this namespace (pid_namespaces(7))
}

}  // namespace cellrund::guest
