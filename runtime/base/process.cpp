#include "base/process.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>

#include "base/file.hpp"

namespace cellrund::base {
namespace {

struct StatFields {
  char state = '?';
  std::uint64_t start_time = 0;
};

// proc(5): "pid (comm) S ppid ..."; comm may hold anything, so fields are counted after the last ')'.
Result<StatFields> read_stat(pid_t pid) {
  const std::string path = "/proc/" + std::to_string(pid) + "/stat";
  const std::string text = CR_TRY(read_file(path, 4096));
  const std::size_t close = text.rfind(')');
  if (close == std::string::npos || close + 2 >= text.size()) {
    return Error(Errc::kDataLoss, path + " is malformed");
  }
  StatFields fields;
  std::string_view rest = std::string_view(text).substr(close + 2);
  fields.state = rest.front();
  constexpr int kStateField = 3;
  constexpr int kStartTimeField = 22;
  for (int i = kStateField; i < kStartTimeField; ++i) {
    const std::size_t space = rest.find(' ');
    if (space == std::string_view::npos) {
      return Error(Errc::kDataLoss, path + " is too short");
    }
    rest.remove_prefix(space + 1);
  }
  const auto parsed = std::from_chars(rest.data(), rest.data() + rest.size(), fields.start_time);
  if (parsed.ec != std::errc()) {
    return Error(Errc::kDataLoss, path + ": start time is no number");
  }
  return fields;
}

// RAII for the two posix_spawn attribute objects.
struct SpawnPlan {
  posix_spawn_file_actions_t actions{};
  posix_spawnattr_t attributes{};
  SpawnPlan() {
    (void)::posix_spawn_file_actions_init(&actions);  // ENOMEM only, which aborts in glibc's malloc users anyway
    (void)::posix_spawnattr_init(&attributes);
  }
  SpawnPlan(const SpawnPlan&) = delete;
  SpawnPlan& operator=(const SpawnPlan&) = delete;
  SpawnPlan(SpawnPlan&&) = delete;
  SpawnPlan& operator=(SpawnPlan&&) = delete;
  ~SpawnPlan() {
    (void)::posix_spawn_file_actions_destroy(&actions);
    (void)::posix_spawnattr_destroy(&attributes);
  }
};

}  // namespace

std::vector<char*> c_strings(const std::vector<std::string>& strings) {
  std::vector<char*> out;
  out.reserve(strings.size() + 1);
  for (const std::string& s : strings) {
    out.push_back(const_cast<char*>(s.c_str()));  // execve(2) takes char* const[] but does not write
  }
  out.push_back(nullptr);
  return out;
}

Result<ProcessId> process_id(pid_t pid) {
  auto fields = read_stat(pid);
  if (!fields.ok()) {
    if (fields.error().os_errno() == ESRCH || fields.error().os_errno() == ENOENT) {
      return Error(Errc::kNotFound, "process " + std::to_string(pid) + " does not exist", ESRCH);
    }
    return std::move(fields).error();
  }
  return ProcessId{pid, fields->start_time};
}

bool is_alive(const ProcessId& id) noexcept {
  const auto fields = read_stat(id.pid);
  return fields.ok() && fields->start_time == id.start_time && fields->state != 'Z' && fields->state != 'X';
}

Result<PidFd> PidFd::open(const ProcessId& id) {
  UniqueFd fd(static_cast<int>(::syscall(SYS_pidfd_open, id.pid, 0)));
  if (!fd) {
    return Error::from_errno("pidfd_open " + std::to_string(id.pid));
  }
  const ProcessId now = CR_TRY(process_id(id.pid));
  if (now != id) {
    return Error(Errc::kNotFound, "process " + std::to_string(id.pid) + " is another one now", ESRCH);
  }
  return PidFd(std::move(fd), id);
}

Result<PidFd> PidFd::open(pid_t pid) {
  UniqueFd fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!fd) {
    return Error::from_errno("pidfd_open " + std::to_string(pid));
  }
  const ProcessId id = CR_TRY(process_id(pid));
  return PidFd(std::move(fd), id);
}

Status PidFd::signal(int signo) const {
  if (::syscall(SYS_pidfd_send_signal, fd_.get(), signo, nullptr, 0) != 0 && errno != ESRCH) {
    return Error::from_errno("pidfd_send_signal to " + std::to_string(id_.pid));
  }
  return ok();
}

Result<bool> PidFd::wait_exit(Deadline deadline) const { return wait_readable(fd_.get(), deadline); }

Result<std::optional<ExitStatus>> PidFd::reap(Deadline deadline) const {
  if (!CR_TRY(wait_exit(deadline))) {
    return std::optional<ExitStatus>{};
  }
  siginfo_t info{};
  if (::waitid(P_PIDFD, static_cast<id_t>(fd_.get()), &info, WEXITED) != 0) {
    return Error::from_errno("waitid " + std::to_string(id_.pid));
  }
  return std::optional<ExitStatus>(ExitStatus{info.si_code != CLD_EXITED, info.si_status});
}

Result<PidFd> spawn(const SpawnOptions& options) {
  if (options.argv.empty() || options.argv.front().empty() || options.argv.front().front() != '/') {
    return Error(Errc::kInvalidArgument, "spawn needs an absolute path");
  }
  SpawnPlan plan;
  constexpr int kHighest = 64;
  std::array<bool, 3> given{};
  // Sources are first lifted above every target number, so that no dup2 overwrites a source still needed.
  std::vector<std::pair<UniqueFd, int>> lifted;
  for (const auto& [ours, theirs] : options.fds) {
    if (theirs < 0 || theirs >= kHighest) {
      return Error(Errc::kInvalidArgument, "descriptor number in the child is out of range");
    }
    UniqueFd copy(::fcntl(ours, F_DUPFD_CLOEXEC, kHighest));
    if (!copy) {
      return Error::from_errno("fcntl F_DUPFD_CLOEXEC");
    }
    lifted.emplace_back(std::move(copy), theirs);
    if (theirs < 3) {
      given[static_cast<std::size_t>(theirs)] = true;
    }
  }
  for (int i = 0; i < 3; ++i) {
    if (!given[static_cast<std::size_t>(i)]) {
      (void)::posix_spawn_file_actions_addopen(&plan.actions, i, "/dev/null", O_RDWR, 0);
    }
  }
  for (const auto& [copy, theirs] : lifted) {
    (void)::posix_spawn_file_actions_adddup2(&plan.actions, copy.get(), theirs);
  }
  // Whatever we ourselves inherited without close-on-exec ends here.
  int end = 3;
  for (const auto& [copy, theirs] : lifted) {
    end = std::max(end, theirs + 1);
  }
  for (int fd = 3; fd < end; ++fd) {
    const bool wanted = std::any_of(lifted.begin(), lifted.end(), [&](const auto& l) { return l.second == fd; });
    if (!wanted) {
      (void)::posix_spawn_file_actions_addclose(&plan.actions, fd);
    }
  }
  (void)::posix_spawn_file_actions_addclosefrom_np(&plan.actions, end);
  if (!options.working_dir.empty()) {
    (void)::posix_spawn_file_actions_addchdir_np(&plan.actions, options.working_dir.c_str());
  }
  sigset_t none;
  sigset_t all;
  (void)::sigemptyset(&none);
  (void)::sigfillset(&all);
  (void)::posix_spawnattr_setsigmask(&plan.attributes, &none);
  (void)::posix_spawnattr_setsigdefault(&plan.attributes, &all);
  int flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF;
  if (options.new_session) {
    flags |= POSIX_SPAWN_SETSID;
  }
  (void)::posix_spawnattr_setflags(&plan.attributes, static_cast<short>(flags));
  std::vector<char*> argv = c_strings(options.argv);
  std::vector<char*> env = c_strings(options.env);
  pid_t pid = 0;
  const int err =
      ::posix_spawn(&pid, options.argv.front().c_str(), &plan.actions, &plan.attributes, argv.data(), env.data());
  if (err != 0) {
    return Error::from_errno("start " + options.argv.front(), err);
  }
  // Our unreaped child keeps its pid, so there is no race between the spawn and this open.
  return PidFd::open(pid);
}

Result<CommandResult> run_command(const SpawnOptions& options, std::string_view input, Deadline deadline,
                                  std::size_t output_limit) {
  Pipe in = CR_TRY(make_pipe());
  Pipe out = CR_TRY(make_pipe());
  Pipe err = CR_TRY(make_pipe());
  SpawnOptions with_pipes = options;
  with_pipes.fds.emplace_back(in.read.get(), 0);
  with_pipes.fds.emplace_back(out.write.get(), 1);
  with_pipes.fds.emplace_back(err.write.get(), 2);
  const PidFd child = CR_TRY(spawn(with_pipes));
  in.read.reset();
  out.write.reset();
  err.write.reset();
  CR_CHECK(set_nonblocking(in.write.get(), true));
  CommandResult result;
  bool timed_out = false;
  const auto drain = [&](UniqueFd& fd, std::string& into) {
    std::array<char, 4096> buffer{};
    const ssize_t n = ::read(fd.get(), buffer.data(), buffer.size());
    if (n == 0 || (n < 0 && errno != EINTR)) {
      fd.reset();
      return;
    }
    if (n > 0 && into.size() < output_limit) {
      into.append(buffer.data(), std::min(static_cast<std::size_t>(n), output_limit - into.size()));
    }
  };
  if (input.empty()) {
    in.write.reset();
  }
  while (out.read || err.read) {
    std::array<pollfd, 3> polls{{{out.read.get(), POLLIN, 0}, {err.read.get(), POLLIN, 0}, {in.write.get(), POLLOUT, 0}}};
    const int n = ::poll(polls.data(), polls.size(), deadline.poll_timeout_ms());
    if (n == 0) {
      timed_out = true;
      break;
    }
    if (n < 0) {
      continue;  // EINTR: the deadline bounds the loop
    }
    if (polls[0].revents != 0) {
      drain(out.read, result.out);
    }
    if (polls[1].revents != 0) {
      drain(err.read, result.err);
    }
    if (in.write && polls[2].revents != 0) {
      const ssize_t written = ::write(in.write.get(), input.data(), input.size());
      if (written < 0 && errno != EAGAIN && errno != EINTR) {
        in.write.reset();  // the child does not read its input: its exit status tells why
      } else if (written > 0) {
        input.remove_prefix(static_cast<std::size_t>(written));
        if (input.empty()) {
          in.write.reset();
        }
      }
    }
  }
  auto exit = timed_out ? Result<std::optional<ExitStatus>>(std::optional<ExitStatus>{}) : child.reap(deadline);
  if (exit.ok() && exit->has_value()) {
    result.exit = **exit;
    return result;
  }
  (void)child.signal(SIGKILL);  // it may have exited in between; the reap below tells
  (void)child.reap(Deadline::after(std::chrono::seconds(5)));
  return Error(Errc::kDeadlineExceeded, options.argv.front() + " did not end in time");
}

}  // namespace cellrund::base
