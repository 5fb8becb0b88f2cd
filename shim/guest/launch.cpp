#include "shim/guest/launch.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "base/file.hpp"
#include "base/process.hpp"
#include "shim/guest/privileges.hpp"
#include "shim/guest/seccomp.hpp"

namespace cellrund::guest {
namespace {

using base::Error;
using wire::Exit;
using wire::ExitKind;

constexpr int kNotFound = 127;
constexpr int kCannotInvoke = 126;
constexpr std::string_view kDefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

// What the workload's process tells its parent over a close-on-exec pipe when there was no exec.
struct LaunchFailure {
  bool in_exec = false;
  int error = 0;
  std::array<char, 200> message{};
};

std::string_view search_path(const wire::Process& process) {
  constexpr std::string_view kPrefix = "PATH=";
  for (const std::string& entry : process.env) {
    if (entry.starts_with(kPrefix)) {
      return std::string_view(entry).substr(kPrefix.size());
    }
  }
  return kDefaultPath;
}

// execve(2), with the search of execvp(3) but the workload's PATH and no fallback to a shell. Returns errno.
int exec_program(const wire::Process& process) {
  const std::vector<char*> argv = base::c_strings(process.args);
  const std::vector<char*> env = base::c_strings(process.env);
  const std::string& name = process.args.front();
  if (name.find('/') != std::string::npos) {
    (void)::execve(name.c_str(), argv.data(), env.data());
    return errno;
  }
  int result = ENOENT;
  std::string_view path = search_path(process);
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
base::Status reset_process_attributes(const wire::Process& process) {
  (void)::signal(SIGPIPE, SIG_DFL);  // the only one that cell-init changes, and it is started with defaults
  sigset_t none;
  (void)::sigemptyset(&none);
  if (::sigprocmask(SIG_SETMASK, &none, nullptr) != 0) {
    return Error::from_errno("sigprocmask");
  }
  (void)::setpriority(PRIO_PROCESS, 0, 0);  // raising the nice value is always allowed
  // Only in the guest was it lowered; there this succeeds, and elsewhere writing 0 over 0 is no matter.
  (void)base::write_kernel_file("/proc/self/oom_score_adj", "0");
  (void)::umask(static_cast<mode_t>(process.umask));
  if (::setsid() < 0) {
    return Error::from_errno("setsid");
  }
  return base::ok();
}

base::Status become_workload(const wire::Process& process, const WorkloadStdio& stdio) {
  CR_CHECK(take_stdio(stdio));
  CR_CHECK(reset_process_attributes(process));
  if (process.terminal && ::ioctl(STDIN_FILENO, TIOCSCTTY, 0) != 0) {
    return Error::from_errno("take the controlling terminal");
  }
  CR_CHECK(set_rlimits(process));
  if (process.seccomp) {
    CR_CHECK(install_seccomp());  // while still privileged, so that it works without no_new_privs too
  }
  CR_CHECK(drop_privileges(process));
  // As the workload's user, so that a folder it may not enter is refused.
  if (::chdir(process.cwd.c_str()) != 0) {
    return Error::from_errno("chdir to the working directory");
  }
  // Everything of ours ends at exec, the pipe that reports its failure included.
  if (::close_range(3, ~0U, CLOSE_RANGE_CLOEXEC) != 0) {
    return Error::from_errno("close_range");
  }
  return base::ok();
}

[[noreturn]] void run_workload(const wire::Process& process, const WorkloadStdio& stdio, int failure_fd) noexcept {
  LaunchFailure failure;
  const base::Status became = become_workload(process, stdio);
  if (became.ok()) {
    failure.in_exec = true;
    failure.error = exec_program(process);
  } else {
    failure.error = became.error().os_errno();
    (void)became.error().message().copy(failure.message.data(), failure.message.size() - 1);
  }
  (void)base::write_all(failure_fd, {reinterpret_cast<const std::uint8_t*>(&failure), sizeof(failure)});
  ::_exit(kCannotInvoke);
}

Exit describe(const LaunchFailure& failure, const std::string& program) {
  Exit exit;
  if (!failure.in_exec) {
    exit.kind = ExitKind::kSetupFailed;
    exit.message = std::string(failure.message.data());
    return exit;
  }
  const bool missing = failure.error == ENOENT || failure.error == ENOTDIR;
  exit.kind = ExitKind::kExecFailed;
  exit.value = missing ? kNotFound : kCannotInvoke;
  exit.message = Error::from_errno("exec " + program.substr(0, 128), failure.error).message();
  return exit;
}

}  // namespace

base::Result<LaunchedProcess> launch_process(const wire::Process& process, const WorkloadStdio& stdio) {
  base::Pipe failure = CR_TRY(base::make_pipe());
  // fork(2) is safe: this process has one thread.
  const pid_t pid = ::fork();
  if (pid < 0) {
    return Error::from_errno("fork");
  }
  if (pid == 0) {
    run_workload(process, stdio, failure.write.get());
  }
  return LaunchedProcess{pid, std::move(failure.read)};
}

base::Result<std::optional<Exit>> read_launch(int failure_fd, const std::string& program) {
  LaunchFailure failure;
  ssize_t n = 0;
  do {
    n = ::read(failure_fd, &failure, sizeof(failure));
  } while (n < 0 && errno == EINTR);
  if (n == 0) {
    return std::optional<Exit>{};
  }
  if (n != static_cast<ssize_t>(sizeof(failure))) {
    return Error(base::Errc::kUnknown, "launch: short failure report");
  }
  return std::optional<Exit>(describe(failure, program));
}

}  // namespace cellrund::guest
