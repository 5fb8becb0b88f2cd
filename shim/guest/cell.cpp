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

#include "shim/guest/namespace_init.hpp"

namespace cellrund::guest {
namespace {

using base::Errc;
using base::Error;

// The workload may open /dev/stdout by its path, so the pipes belong to it (as runc does, libcontainer fixStdioPermissions).
base::Status give_to(int fd, const wire::Workload& workload) {
  if (::fchown(fd, workload.uid, workload.gid) != 0) {
    return Error::from_errno("fchown stdio pipe");
  }
  return base::ok();
}

}  // namespace

base::Result<Cell> Cell::create(const wire::Workload& workload, int cgroup_fd, int channel_fd) {
  Cell cell;
  base::Pipe in = CR_TRY(base::make_pipe());
  base::Pipe out = CR_TRY(base::make_pipe());
  base::Pipe err = CR_TRY(base::make_pipe());
  for (const int fd : {in.read.get(), out.write.get(), err.write.get()}) {
    CR_CHECK(give_to(fd, workload));
  }
  for (const int fd : {in.write.get(), out.read.get(), err.read.get()}) {
    CR_CHECK(base::set_nonblocking(fd, true));
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
    in.write.reset();
    out.read.reset();
    err.read.reset();
    ctl.ours.reset();
    run_namespace_init(workload, std::move(ctl.theirs),
                       WorkloadStdio{std::move(in.read), std::move(out.write), std::move(err.write)});
  }
  cell.pidfd_.reset(pidfd);
  cell.ctl_ = std::move(ctl.ours);
  cell.stdio_ = StdioPipes{std::move(in.write), std::move(out.read), std::move(err.read)};
  CR_CHECK(base::set_nonblocking(cell.ctl_.get(), true));
  return cell;
}

base::Result<Cell::Event> Cell::report() {
  if (!ctl_) {
    return reap();
  }
  std::array<std::uint8_t, 512> buffer{};
  const ssize_t n = ::recv(ctl_.get(), buffer.data(), buffer.size(), 0);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
    return Event::kNothing;
  }
  if (n <= 0) {
    ctl_.reset();  // from now on the pidfd tells
    return reap();
  }
  switch (buffer[0]) {
    case kReportPrepared:
      return Event::kPrepared;
    case kReportStarted:
      started_ = true;
      return Event::kStarted;
    case kReportEnded:
      exit_ = CR_TRY(wire::decode_exit(base::BytesView(buffer.data() + 1, static_cast<std::size_t>(n) - 1)));
      have_exit_ = true;
      return Event::kNothing;
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

base::Status Cell::start() {
  if (::send(ctl_.get(), &kStartCommand, 1, MSG_NOSIGNAL) != 1) {
    return Error::from_errno("send start to the namespace init");
  }
  return base::ok();
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
  const auto command = static_cast<unsigned char>(signo);
  // EAGAIN: hundreds of signals are queued already; EPIPE: it has just ended. One more changes nothing.
  if (::send(ctl_.get(), &command, 1, MSG_NOSIGNAL) != 1 && errno != EAGAIN && errno != EPIPE && errno != ECONNRESET) {
    return Error::from_errno("send signal to the namespace init");
  }
  return base::ok();
}

}  // namespace cellrund::guest
