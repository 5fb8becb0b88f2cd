#include "host/clone.hpp"

#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "base/file.hpp"

namespace cellrund::host {
namespace {

using base::Errc;
using base::Error;
using base::Result;
using base::Status;
using base::UniqueFd;

constexpr int kHighestTarget = 256;
constexpr std::size_t kChildStack = 64UL * 1024;

enum class Step : int { kWait, kGroups, kGid, kUid, kNoNewPrivs, kSession, kDeathSignal, kFolder, kClose, kDup, kExec };

constexpr std::array<const char*, 11> kStepNames{
    "wait for id maps", "setgroups", "setresgid",   "setresuid", "no_new_privs", "setsid",
    "PR_SET_PDEATHSIG", "chdir",     "close_range", "dup2",      "exec"};

// What the child reports when it cannot become the program.
struct Failure {
  int step = 0;
  int error = 0;
};

// Everything that the child needs, made before its birth, because the child may not allocate.
struct Plan {
  const CloneOptions* options = nullptr;
  std::vector<char*> argv;
  std::vector<char*> env;
  std::vector<std::pair<int, int>> dups;  // (lifted descriptor, target)
  int wait_fd = -1;                       // a byte arrives once the id maps are written; -1: no maps
  int wait_write_fd = -1;                 // the child's copy of the other end
  int report_fd = -1;                     // close-on-exec
  int program_fd = -1;
  sigset_t empty_mask{};
};

// Raw system calls: glibc's setresuid() would signal the threads of the process whose memory the child may share.
template <typename... Args>
long raw(long number, Args... args) noexcept {
  return ::syscall(number, args...);
}

[[noreturn]] void give_up(const Plan& plan, Step step) noexcept {
  const Failure failure{static_cast<int>(step), errno};
  (void)raw(SYS_write, plan.report_fd, &failure, sizeof failure);
  for (;;) {
    (void)raw(SYS_exit_group, 127);
  }
}

// The child. Async-signal-safe system calls only; the memory may be the parent's.
int become_program(void* argument) noexcept {
  const Plan& plan = *static_cast<const Plan*>(argument);
  const CloneOptions& options = *plan.options;
  // Handlers of the parent must never run here. The parent has blocked every signal before the birth.
  struct sigaction default_action {};
  default_action.sa_handler = SIG_DFL;
  for (int signo = 1; signo < NSIG; ++signo) {
    (void)::sigaction(signo, &default_action, nullptr);  // SIGKILL, SIGSTOP and glibc's own two refuse: as they should
  }
  if (plan.wait_fd >= 0) {
    (void)raw(SYS_close, plan.wait_write_fd);  // or the end of the parent would not end the wait
    char byte = 0;
    long n = 0;
    do {
      n = raw(SYS_read, plan.wait_fd, &byte, 1);
    } while (n < 0 && errno == EINTR);
    if (n != 1) {
      errno = n == 0 ? ECANCELED : errno;
      give_up(plan, Step::kWait);
    }
  }
  if (options.new_session && raw(SYS_setsid) < 0) {
    give_up(plan, Step::kSession);
  }
  if (!options.working_dir.empty() && raw(SYS_chdir, options.working_dir.c_str()) != 0) {
    give_up(plan, Step::kFolder);
  }
  if (options.identity.has_value()) {
    const Identity id = *options.identity;
    if (raw(SYS_setgroups, 0, nullptr) != 0) {
      give_up(plan, Step::kGroups);
    }
    if (raw(SYS_setresgid, id.gid, id.gid, id.gid) != 0) {
      give_up(plan, Step::kGid);
    }
    if (raw(SYS_setresuid, id.uid, id.uid, id.uid) != 0) {
      give_up(plan, Step::kUid);
    }
  }
  // After the change of identity, which clears it (PR_SET_PDEATHSIG(2const)).
  if (options.parent_death_signal != 0 && raw(SYS_prctl, PR_SET_PDEATHSIG, options.parent_death_signal) != 0) {
    give_up(plan, Step::kDeathSignal);
  }
  if (options.no_new_privs && raw(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
    give_up(plan, Step::kNoNewPrivs);
  }
  // Every descriptor closes at exec; dup2 then makes the listed ones without that flag.
  if (raw(SYS_close_range, 3U, ~0U, CLOSE_RANGE_CLOEXEC) != 0) {
    give_up(plan, Step::kClose);
  }
  for (const auto& [from, to] : plan.dups) {
    if (raw(SYS_dup3, from, to, 0) < 0) {
      give_up(plan, Step::kDup);
    }
  }
  (void)raw(SYS_rt_sigprocmask, SIG_SETMASK, &plan.empty_mask, nullptr, NSIG / 8);
  if (plan.program_fd >= 0) {
    (void)raw(SYS_execveat, plan.program_fd, "", plan.argv.data(), plan.env.data(), AT_EMPTY_PATH);
  } else {
    (void)raw(SYS_execve, plan.argv.front(), plan.argv.data(), plan.env.data());
  }
  give_up(plan, Step::kExec);
}

// clone3 with a stack of its own for the child: it must not return through a frame that the parent uses as well.
// In the child `become_program(plan)` is called and never returns.
long clone_sharing_memory(clone_args& args, Plan& plan) noexcept {
  long result = SYS_clone3;
  int (*entry)(void*) noexcept = &become_program;
  void* argument = &plan;
  __asm__ volatile(
      "syscall\n\t"
      "test %%rax, %%rax\n\t"
      "jnz 1f\n\t"
      "xor %%ebp, %%ebp\n\t"  // the outermost frame, for unwinders
      "mov %[argument], %%rdi\n\t"
      "call *%[entry]\n\t"
      "hlt\n\t"
      "1:\n\t"
      : "+a"(result)
      : "D"(&args), "S"(sizeof args), [entry] "r"(entry), [argument] "r"(argument)
      : "rcx", "r11", "memory", "cc");
  if (result < 0) {
    errno = static_cast<int>(-result);
    return -1;
  }
  return result;
}

// All signals blocked for the calling thread while it lives.
class SignalsBlocked {
 public:
  SignalsBlocked() noexcept {
    sigset_t all{};
    (void)sigfillset(&all);
    (void)::pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;
  SignalsBlocked(SignalsBlocked&&) = delete;
  SignalsBlocked& operator=(SignalsBlocked&&) = delete;
  ~SignalsBlocked() { (void)::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_{};
};

class ChildStack {
 public:
  ChildStack() noexcept
      : memory_(::mmap(nullptr, kChildStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0)) {}
  ChildStack(const ChildStack&) = delete;
  ChildStack& operator=(const ChildStack&) = delete;
  ChildStack(ChildStack&&) = delete;
  ChildStack& operator=(ChildStack&&) = delete;
  ~ChildStack() {
    if (valid()) {
      (void)::munmap(memory_, kChildStack);
    }
  }
  [[nodiscard]] bool valid() const noexcept { return memory_ != MAP_FAILED; }
  [[nodiscard]] std::uint64_t address() const noexcept { return reinterpret_cast<std::uint64_t>(memory_); }

 private:
  void* memory_;
};

// /proc/PID/{uid,gid}_map, one write each (user_namespaces(7)).
Status write_id_maps(pid_t pid, const std::vector<IdRange>& ranges) {
  std::string text;
  for (const IdRange& range : ranges) {
    text +=
        std::to_string(range.inside) + " " + std::to_string(range.outside) + " " + std::to_string(range.count) + "\n";
  }
  const std::string folder = "/proc/" + std::to_string(pid);
  CR_CHECK(base::write_kernel_file(folder + "/gid_map", text));
  return base::write_kernel_file(folder + "/uid_map", text);
}

// Sources are lifted above every target number, so that no dup overwrites a descriptor that is still needed.
Result<UniqueFd> lift(int fd) {
  UniqueFd copy(::fcntl(fd, F_DUPFD_CLOEXEC, kHighestTarget));
  if (!copy) {
    return Error::from_errno("fcntl F_DUPFD_CLOEXEC");
  }
  return copy;
}

Status kill_and_reap(const UniqueFd& pidfd) {
  (void)raw(SYS_pidfd_send_signal, pidfd.get(), SIGKILL, nullptr, 0);  // gone already is as good
  siginfo_t info{};
  while (::waitid(P_PIDFD, static_cast<id_t>(pidfd.get()), &info, WEXITED) != 0) {
    if (errno != EINTR) {
      return Error::from_errno("waitid");
    }
  }
  return base::ok();
}

}  // namespace

Result<base::PidFd> clone_and_exec(const CloneOptions& options) {
  if (options.argv.empty() || (options.program_fd < 0 && !options.argv.front().starts_with('/'))) {
    return Error(Errc::kInvalidArgument, "start a program: an absolute path or an open file is needed");
  }
  if (!options.id_map.empty() && (options.namespaces & CLONE_NEWUSER) == 0) {
    return Error(Errc::kInvalidArgument, "start " + options.argv.front() + ": id maps need a user namespace");
  }
  Plan plan;
  plan.options = &options;
  plan.argv = base::c_strings(options.argv);
  plan.env = base::c_strings(options.env);
  (void)sigemptyset(&plan.empty_mask);

  std::vector<UniqueFd> lifted;
  std::array<bool, 3> given{};
  for (const auto& [ours, theirs] : options.fds) {
    if (theirs < 0 || theirs >= kHighestTarget) {
      return Error(Errc::kInvalidArgument, "descriptor number in the child is out of range");
    }
    lifted.push_back(CR_TRY(lift(ours)));
    plan.dups.emplace_back(lifted.back().get(), theirs);
    if (theirs < 3) {
      given[static_cast<std::size_t>(theirs)] = true;
    }
  }
  for (int fd = 0; fd < 3; ++fd) {
    if (!given[static_cast<std::size_t>(fd)]) {
      const UniqueFd null = CR_TRY(base::open_file("/dev/null", fd == 0 ? O_RDONLY : O_WRONLY));
      lifted.push_back(CR_TRY(lift(null.get())));
      plan.dups.emplace_back(lifted.back().get(), fd);
    }
  }
  UniqueFd program;
  if (options.program_fd >= 0) {
    program = CR_TRY(lift(options.program_fd));
    plan.program_fd = program.get();
  }
  base::Pipe report = CR_TRY(base::make_pipe());
  UniqueFd report_write = CR_TRY(lift(report.write.get()));
  report.write.reset();
  plan.report_fd = report_write.get();
  base::Pipe go;
  const bool maps = !options.id_map.empty();
  if (maps) {
    go = CR_TRY(base::make_pipe());
    plan.wait_fd = go.read.get();
    plan.wait_write_fd = go.write.get();
  }

  const ChildStack stack;
  if (!stack.valid()) {
    return Error::from_errno("mmap of a child stack");
  }
  int pidfd_number = -1;
  clone_args args{};
  args.flags = options.namespaces | CLONE_PIDFD;
  args.pidfd = reinterpret_cast<std::uint64_t>(&pidfd_number);
  args.exit_signal = SIGCHLD;
  if (options.cgroup_fd >= 0) {
    args.flags |= CLONE_INTO_CGROUP;
    args.cgroup = static_cast<std::uint64_t>(options.cgroup_fd);
  }
  long pid = -1;
  int error = 0;
  {
    const SignalsBlocked blocked;
    if (maps) {
      // The parent must write the maps while the child waits, so the child cannot borrow memory: it gets a copy.
      pid = raw(SYS_clone3, &args, sizeof args);
      if (pid == 0) {
        become_program(&plan);
      }
    } else {
      args.flags |= CLONE_VM | CLONE_VFORK;
      args.stack = stack.address();
      args.stack_size = kChildStack;
      pid = clone_sharing_memory(args, plan);
    }
    error = errno;
  }
  if (pid < 0) {
    return Error::from_errno("start " + options.argv.front() + ": clone3", error);
  }
  UniqueFd pidfd(pidfd_number);
  lifted.clear();
  // Our copy must go before the read below, or it would never see the end of file.
  report_write.reset();
  if (maps) {
    go.read.reset();
    auto mapped = write_id_maps(static_cast<pid_t>(pid), options.id_map);
    if (!mapped.ok()) {
      (void)kill_and_reap(pidfd);  // the failure that matters is the map's
      return std::move(mapped).error().context("start " + options.argv.front());
    }
    const char byte = 1;
    (void)base::write_all(go.write.get(), base::as_bytes({&byte, 1}));  // a dead child shows below
  }
  // End of file means that the exec closed the child's end; the child does nothing that waits in between.
  Failure failure;
  ssize_t n = 0;
  do {
    n = ::read(report.read.get(), &failure, sizeof failure);
  } while (n < 0 && errno == EINTR);
  if (n != 0) {
    (void)kill_and_reap(pidfd);  // it is ending by itself; this only collects it
    const auto step = static_cast<std::size_t>(failure.step);
    const std::string name = n == sizeof failure && step < kStepNames.size() ? kStepNames[step] : "unknown step";
    return Error::from_errno("start " + options.argv.front() + ": " + name, failure.error);
  }
  auto id = base::process_id(static_cast<pid_t>(pid));
  if (!id.ok()) {
    (void)kill_and_reap(pidfd);
    return std::move(id).error();
  }
  return base::PidFd(std::move(pidfd), *id);
}

}  // namespace cellrund::host
