#include "shim/guest/cell.hpp"

#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "shim/guest/fd_message.hpp"
#include "shim/guest/namespace_init.hpp"
#include "shim/guest/outputs.hpp"
#include "shim/wire/codec.hpp"

namespace cellrund::guest {
namespace {

using base::Errc;
using base::Error;

// The workload may open /dev/stdout by its path, so the pipes belong to it (as runc does, libcontainer fixStdioPermissions).
base::Status give_to(int fd, const wire::Process& process) {
  if (::fchown(fd, process.uid, process.gid) != 0) {
    return Error::from_errno("fchown stdio pipe");
  }
  return base::ok();
}

// EAGAIN: hundreds of signals are queued already; EPIPE: it has just ended. One more changes nothing.
base::Status unless_busy(base::Status sent) {
  const int error = sent.ok() ? 0 : sent.error().os_errno();
  return error == EAGAIN || error == EPIPE || error == ECONNRESET ? base::ok() : std::move(sent);
}

struct StdioEnds {
  StdioPipes ours;
  WorkloadStdio theirs;
};

base::Result<StdioEnds> make_pipes(const wire::Process& process) {
  base::Pipe in = CR_TRY(base::make_pipe());
  base::Pipe out = CR_TRY(base::make_pipe());
  base::Pipe err = CR_TRY(base::make_pipe());
  for (const int fd : {in.read.get(), out.write.get(), err.write.get()}) {
    CR_CHECK(give_to(fd, process));
  }
  for (const int fd : {in.write.get(), out.read.get(), err.read.get()}) {
    CR_CHECK(base::set_nonblocking(fd, true));
  }
  return StdioEnds{{std::move(in.write), std::move(out.read), std::move(err.read)},
                   {std::move(in.read), std::move(out.write), std::move(err.write)}};
}

base::Result<StdioPipes> pipes_of(base::UniqueFd master) {
  base::UniqueFd second(::fcntl(master.get(), F_DUPFD_CLOEXEC, 3));
  if (!second) {
    return Error::from_errno("fcntl F_DUPFD_CLOEXEC");
  }
  return StdioPipes{std::move(second), std::move(master), {}};
}

}  // namespace

base::Result<Cell> Cell::create(const wire::Workload& workload, int cgroup_fd, int channel_fd) {
  Cell cell;
  StdioEnds ends;
  if (!workload.terminal) {
    ends = CR_TRY(make_pipes(workload));
  }
  if (workload.outputs) {
    cell.outputs_ = CR_TRY(make_outputs(workload));
  }
  base::SocketPair ctl = CR_TRY(base::make_socket_pair(SOCK_SEQPACKET));
  int pidfd = -1;
  clone_args args{};
  args.flags = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP | CLONE_PIDFD;
  args.pidfd = reinterpret_cast<std::uint64_t>(&pidfd);
  args.exit_signal = SIGCHLD;
  if (cgroup_fd >= 0) {
    args.flags |= CLONE_INTO_CGROUP;
    args.cgroup = static_cast<std::uint64_t>(cgroup_fd);
  }
  // Without a stack this is fork(2) with flags; fine, since this process has one thread.
  const long pid = ::syscall(SYS_clone3, &args, sizeof(args));
  if (pid < 0) {
    return Error::from_errno("clone3 namespace init");
  }
  if (pid == 0) {
    (void)::close(channel_fd);
    ends.ours = StdioPipes{};
    ctl.ours.reset();
    run_namespace_init(workload, std::move(ctl.theirs), std::move(ends.theirs), std::move(cell.outputs_));
  }
  cell.pidfd_.reset(pidfd);
  cell.ctl_ = std::move(ctl.ours);
  cell.stdio_ = std::move(ends.ours);
  CR_CHECK(base::set_nonblocking(cell.ctl_.get(), true));
  return cell;
}

base::Result<Cell::Event> Cell::report() {
  if (!ctl_) {
    return reap();
  }
  std::array<std::uint8_t, 512> buffer{};
  auto received = CR_TRY(receive_message(ctl_.get(), buffer));
  if (!received.has_value()) {
    return Event::kNothing;
  }
  if (received->data.empty()) {
    ctl_.reset();  // from now on the pidfd tells
    return reap();
  }
  wire::Reader in(received->data.subspan(1));
  std::optional<StdioPipes> terminal;
  if (received->data[0] == kReportSecrets) {
    if (received->fds.size() != 1) {
      return Error(Errc::kDataLoss, "namespace init: no folder for secrets");
    }
    secrets_ = std::move(received->fds.front());
    return Event::kNothing;
  }
  if (!received->fds.empty()) {
    terminal = CR_TRY(pipes_of(std::move(received->fds.front())));
  }
  switch (received->data[0]) {
    case kReportPrepared:
      if (terminal) {
        stdio_ = *std::move(terminal);
      }
      return Event::kPrepared;
    case kReportStarted:
      started_ = true;
      return Event::kStarted;
    case kReportEnded:
      exit_ = CR_TRY(wire::decode_exit(in.raw(in.left())));
      have_exit_ = true;
      return Event::kNothing;
    case kReportExecStarted:
      exec_report_ = {in.u32(), {}, std::move(terminal)};
      return Event::kExecStarted;
    case kReportExecEnded:
      exec_report_ = {in.u32(), {}, {}};
      exec_report_.exit = CR_TRY(wire::decode_exit(in.raw(in.left())));
      return Event::kExecEnded;
    default:
      return Error(Errc::kDataLoss, "namespace init: unknown report");
  }
}

base::Result<Cell::Event> Cell::reap() {
  // A namespace init becomes waitable only after the kernel has killed and reaped all others of its namespace.
  siginfo_t info{};
  if (::waitid(P_PIDFD, static_cast<id_t>(pidfd_.get()), &info, WEXITED | WNOHANG) != 0 && errno != EINTR) {
    return Error::from_errno("waitid namespace init");
  }
  if (info.si_pid == 0) {
    return Event::kNothing;
  }
  if (!have_exit_) {
    // It had no time to report: killed by us, by the OOM killer, or by the host's cgroup.
    exit_ = wire::Exit{};
    exit_.kind = started_ || kill_sent_ ? wire::ExitKind::kSignaled : wire::ExitKind::kSetupFailed;
    exit_.value = started_ || kill_sent_ ? SIGKILL : 0;
    exit_.message = kill_sent_ ? "" : "the namespace init was killed";
    have_exit_ = true;
  }
  return Event::kEnded;
}

base::Status Cell::command(base::BytesView message, std::initializer_list<int> fds) {
  return send_message(ctl_.get(), message, fds).context("command to the namespace init");
}

base::Status Cell::start() { return command({&kStartCommand, 1}); }

base::Result<std::optional<StdioPipes>> Cell::exec(std::uint32_t number, const wire::Process& process) {
  if (!ctl_) {
    return Error(Errc::kFailedPrecondition, "the workload has ended");
  }
  wire::Writer message;
  message.u8(kExecCommand);
  message.u32(number);
  message.raw(CR_TRY(wire::encode_process(process)));
  if (process.terminal) {
    CR_CHECK(command(message.bytes()));
    return std::optional<StdioPipes>{};
  }
  StdioEnds ends = CR_TRY(make_pipes(process));
  CR_CHECK(command(message.bytes(), {ends.theirs.in.get(), ends.theirs.out.get(), ends.theirs.err.get()}));
  return std::optional<StdioPipes>(std::move(ends.ours));
}

base::Status Cell::signal_exec(std::uint32_t number, int signo) {
  if (!ctl_) {
    return base::ok();
  }
  wire::Writer message;
  message.u8(kExecSignalCommand);
  message.u32(number);
  message.u8(static_cast<std::uint8_t>(signo));
  return unless_busy(command(message.bytes()));
}

base::Status Cell::signal(int signo) {
  if (signo == SIGKILL) {
    kill_sent_ = true;
    if (::syscall(SYS_pidfd_send_signal, pidfd_.get(), SIGKILL, nullptr, 0) != 0 && errno != ESRCH) {
      return Error::from_errno("kill namespace init");
    }
    return base::ok();
  }
  if (!ctl_) {
    return base::ok();
  }
  const auto signal = static_cast<unsigned char>(signo);
  return unless_busy(command({&signal, 1}));
}

}  // namespace cellrund::guest
