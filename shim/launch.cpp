#include "shim/launch.hpp"

#include <fcntl.h>
#include <grp.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>

#include "base/file.hpp"
#include "shim/vmm_root.hpp"

namespace cellrund::shim {
namespace {

using base::Error;
using base::Result;
using base::Status;

constexpr int kLiftedFd = 512;  // above every number that a child is given
constexpr rlim_t kOpenFiles = 128;

// Told through the report pipe when a step fails; nothing is told when exec succeeds, because the pipe is close-on-exec.
struct Report {
  int err = 0;
  std::array<char, 200> step{};
};

[[noreturn]] void give_up(int report_fd, std::string_view step, int err) noexcept {
  Report report{err, {}};
  std::copy_n(step.begin(), std::min(step.size(), report.step.size() - 1), report.step.begin());
  (void)!::write(report_fd, &report, sizeof(report));  // nobody is left to tell otherwise
  ::_exit(127);
}

void limit(int report_fd, __rlimit_resource resource, rlim_t value) noexcept {
  const rlimit both{value, value};
  if (::setrlimit(resource, &both) != 0) {
    give_up(report_fd, "setrlimit", errno);
  }
}

// Capabilities leave with the uid (capabilities(7), "Effect of user ID changes"); the bounding set does not by itself.
void become_nobody(int report_fd, std::uint32_t uid) noexcept {
  for (int capability = 0; capability <= 63; ++capability) {
    if (::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0 && errno != EINVAL) {
      give_up(report_fd, "drop bounding set", errno);
    }
  }
  if (::setgroups(0, nullptr) != 0) {
    give_up(report_fd, "setgroups", errno);
  }
  if (::setresgid(uid, uid, uid) != 0) {
    give_up(report_fd, "setresgid", errno);
  }
  if (::setresuid(uid, uid, uid) != 0) {
    give_up(report_fd, "setresuid", errno);
  }
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
    give_up(report_fd, "no_new_privs", errno);
  }
}

void place_descriptors(int report_fd, const LaunchPlan& plan, std::vector<std::pair<int, int>>& lifted) noexcept {
  for (const auto& [copy, theirs] : lifted) {
    if (::dup2(copy, theirs) < 0) {
      give_up(report_fd, "dup2", errno);
    }
  }
  if (::dup2(plan.error_fd, 1) < 0 || ::dup2(plan.error_fd, 2) < 0) {
    give_up(report_fd, "dup2", errno);
  }
  int end = 3;
  for (const auto& [copy, theirs] : lifted) {
    end = std::max(end, theirs + 1);
  }
  // Close-on-exec rather than closed: the report pipe must live until exec has happened.
  for (int fd = 3; fd < end; ++fd) {
    if (std::none_of(lifted.begin(), lifted.end(), [fd](const auto& pair) { return pair.second == fd; })) {
      (void)::close(fd);  // mostly not open
    }
  }
  if (::syscall(SYS_close_range, static_cast<unsigned>(end), ~0U, CLOSE_RANGE_CLOEXEC) != 0) {
    give_up(report_fd, "close_range", errno);
  }
}

struct ChildPipes {
  int report_write = -1;
  int gate_read = -1;  // a byte: go on; end of file: the parent is gone
};

// One thread, a copy of the parent's memory: whatever a fork allows is allowed here.
[[noreturn]] void run_child(const LaunchPlan& plan, ChildPipes pipes, std::vector<std::pair<int, int>> lifted) {
  char go = 0;
  if (::read(pipes.gate_read, &go, 1) != 1) {
    ::_exit(127);
  }
  sigset_t none;
  (void)::sigemptyset(&none);
  (void)::sigprocmask(SIG_SETMASK, &none, nullptr);
  // Writing past RLIMIT_FSIZE shall be an I/O error for the guest, not the end of the machine (setrlimit(2)).
  (void)::signal(SIGXFSZ, SIG_IGN);
  (void)::signal(SIGPIPE, SIG_DFL);
  if (plan.netns_fd >= 0 && ::setns(plan.netns_fd, CLONE_NEWNET) != 0) {
    give_up(pipes.report_write, "join network namespace", errno);
  }
  if (const Status root = enter_vmm_root(plan.argv.front(), plan.kvm, plan.uid); !root.ok()) {
    give_up(pipes.report_write, root.error().message(), root.error().os_errno());
  }
  const base::UniqueFd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (!null || ::dup2(null.get(), 0) < 0) {
    give_up(pipes.report_write, "open /dev/null", errno);
  }
  limit(pipes.report_write, RLIMIT_CORE, 1);
  limit(pipes.report_write, RLIMIT_NOFILE, kOpenFiles);
  limit(pipes.report_write, RLIMIT_FSIZE, plan.largest_file_bytes);
  limit(pipes.report_write, RLIMIT_MSGQUEUE, 0);
  place_descriptors(pipes.report_write, plan, lifted);
  become_nobody(pipes.report_write, plan.uid);
  // After the change of uid, which clears it (prctl(2)). In a new pid namespace getppid(2) cannot tell whether the parent
  // died in between; the gate can: its writing end is the parent's alone.
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0) {
    give_up(pipes.report_write, "PR_SET_PDEATHSIG", errno);
  }
  pollfd gate{pipes.gate_read, POLLIN, 0};
  if (::poll(&gate, 1, 0) != 0) {
    ::_exit(127);
  }
  const std::vector<char*> argv = base::c_strings(plan.argv);
  std::array<char*, 1> env{nullptr};
  (void)::execve(argv.front(), argv.data(), env.data());
  give_up(pipes.report_write, "exec " + plan.argv.front(), errno);
}

void end_child(const base::PidFd& child) {
  (void)child.signal(SIGKILL);  // a child of ours: it is there until reaped
  (void)child.reap(base::Deadline::after(std::chrono::seconds(5)));
}

}  // namespace

Result<base::PidFd> launch_vmm(const LaunchPlan& plan, const BeforeExec& before_exec) {
  base::Pipe report = CR_TRY(base::make_pipe());
  base::Pipe gate = CR_TRY(base::make_pipe());
  std::vector<base::UniqueFd> copies;
  std::vector<std::pair<int, int>> lifted;
  const auto lift = [&](int fd) -> Result<int> {
    copies.emplace_back(::fcntl(fd, F_DUPFD_CLOEXEC, kLiftedFd));
    if (!copies.back()) {
      return Error::from_errno("fcntl F_DUPFD_CLOEXEC");
    }
    return copies.back().get();
  };
  for (const auto& [ours, theirs] : plan.fds) {
    lifted.emplace_back(CR_TRY(lift(ours)), theirs);
  }
  LaunchPlan lifted_plan = plan;
  lifted_plan.error_fd = CR_TRY(lift(plan.error_fd));
  ChildPipes pipes;
  pipes.report_write = CR_TRY(lift(report.write.get()));
  pipes.gate_read = CR_TRY(lift(gate.read.get()));

  int pidfd = -1;
  clone_args args{};
  args.flags = CLONE_PIDFD | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS |
               (plan.netns_fd < 0 ? std::uint64_t{CLONE_NEWNET} : 0);
  args.pidfd = reinterpret_cast<std::uint64_t>(&pidfd);
  args.exit_signal = SIGCHLD;
  const long pid = ::syscall(SYS_clone3, &args, sizeof(args));
  if (pid < 0) {
    return Error::from_errno("clone3");
  }
  if (pid == 0) {
    (void)::close(gate.write.release());  // else the child would keep its own gate open
    run_child(lifted_plan, pipes, std::move(lifted));
  }
  base::UniqueFd owned_pidfd(pidfd);
  const Result<base::ProcessId> id = base::process_id(static_cast<pid_t>(pid));
  base::PidFd child(std::move(owned_pidfd), id.ok() ? *id : base::ProcessId{static_cast<pid_t>(pid), 0});
  copies.clear();
  report.write.reset();
  gate.read.reset();
  Status ready = id.ok() ? before_exec(*id) : Status(id.error().clone());
  if (ready.ok()) {
    ready = base::write_all(gate.write.get(), base::as_bytes("g")).context("let the VMM go");
  }
  if (!ready.ok()) {
    end_child(child);
    return std::move(ready).error();
  }
  const auto told = base::wait_readable(report.read.get(), base::Deadline::after(std::chrono::seconds(10)));
  Report failure;
  const ssize_t n = told.ok() && *told ? ::read(report.read.get(), &failure, sizeof(failure)) : -1;
  if (n == 0) {
    return child;  // end of file: exec closed the pipe
  }
  end_child(child);
  if (n == static_cast<ssize_t>(sizeof(failure))) {
    failure.step.back() = '\0';
    return Error::from_errno("start the VMM: " + std::string(failure.step.data()), failure.err);
  }
  return Error(base::Errc::kDeadlineExceeded, "start the VMM: it did not reach its exec in time");
}

}  // namespace cellrund::shim
