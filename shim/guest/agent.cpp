#include "shim/guest/agent.hpp"

#include <poll.h>
#include <signal.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <utility>

#include "shim/guest/outputs.hpp"

namespace cellrund::guest {
namespace {

using base::Deadline;
using base::Errc;
using base::Error;
using wire::FrameType;
using wire::Stream;

// For the EXIT frame to leave, and for the host to say SHUTDOWN.
constexpr auto kFlushPatience = std::chrono::seconds(2);
constexpr auto kReopenInterval = std::chrono::milliseconds(20);

Error out_of_order(const char* what) { return Error(Errc::kFailedPrecondition, std::string("host: ") + what); }

}  // namespace

base::Status Agent::run() {
  while (phase_ != Phase::kDone) {
    CR_CHECK(turn());
  }
  return base::ok();
}

std::optional<Deadline> Agent::phase_deadline() const {
  std::optional<Deadline> next;
  for (const auto& candidate : {phase_ends_, quiet_until_, io_.drain_ends(), execs_.deadline()}) {
    if (candidate && (!next || candidate->remaining() < next->remaining())) {
      next = candidate;
    }
  }
  return next;
}

base::Status Agent::turn() {
  if (quiet_until_ && quiet_until_->expired()) {
    quiet_until_.reset();
  }
  const bool listen = !host_gone_ && !quiet_until_;
  short channel_events = 0;
  if (listen) {
    channel_events = static_cast<short>(POLLIN | (channel_.wants_write() ? POLLOUT : 0));
  }
  const ProcessIo::Polls own = io_.polls(host_gone_);
  // A negative descriptor is passed over by poll(2).
  std::vector<pollfd> polls{{listen ? channel_.fd() : -1, channel_events, 0},
                            {cell_ && phase_ < Phase::kDraining ? cell_->report_fd() : -1, POLLIN, 0},
                            {timer_.get(), POLLIN, 0},
                            {sender_.get(), POLLIN, 0}};
  constexpr std::size_t kOwn = 4;
  polls.insert(polls.end(), own.begin(), own.end());
  execs_.add_polls(polls);
  const auto until = phase_deadline();
  if (::poll(polls.data(), polls.size(), until ? until->poll_timeout_ms() : -1) < 0) {
    return errno == EINTR ? base::ok() : base::Status(Error::from_errno("poll"));
  }
  // The deadline first: whatever else goes on must not delay it.
  if (polls[2].revents != 0) {
    CR_CHECK(on_timer());
  }
  io_.handle(&polls[kOwn], host_gone_);
  execs_.handle(&polls[kOwn] + own.size());
  if (polls[0].revents != 0) {
    CR_CHECK(on_channel(polls[0].revents));
  }
  if (polls[1].revents != 0) {
    CR_CHECK(on_cell());
  }
  if (polls[3].revents != 0) {
    CR_CHECK(on_outputs_sent());
  }
  execs_.settle();
  if (phase_ == Phase::kDraining) {
    if (io_.drain(host_gone_)) {
      exit_.output_truncated = io_.truncated();
      begin_outputs();
    }
  } else if (phase_ == Phase::kFlushing && (channel_.lost() || host_gone_ || (phase_ends_ && phase_ends_->expired()))) {
    phase_ = Phase::kDone;
  }
  return base::ok();
}

base::Status Agent::on_channel(short revents) {
  if ((revents & POLLOUT) != 0) {
    channel_.flush();
  }
  if ((revents & (POLLIN | POLLHUP | POLLERR)) == 0) {
    return base::ok();
  }
  base::Status handled = base::ok();
  const Channel::Read read = channel_.receive([&](const wire::FrameView& frame) {
    if (handled.ok() && phase_ != Phase::kDone) {
      handled = on_frame(frame);
    }
  });
  CR_CHECK(std::move(handled));
  if (read == Channel::Read::kEndOfFile || channel_.lost()) {
    if (platform_.end_of_stream_is_final()) {
      on_host_gone();
    } else {
      quiet_until_ = Deadline::after(kReopenInterval);
    }
  }
  return base::ok();
}

// The process lane without its daemon. Before START nobody will ever say it; afterwards the job goes on up to its
// deadline, unheard. Without a deadline it ends here, and so does one with secrets: their time to live is the daemon's to keep.
void Agent::on_host_gone() {
  host_gone_ = true;
  channel_.mark_lost();
  if (phase_ < Phase::kStarting) {
    phase_ = Phase::kDone;
  } else if ((!timer_ || secrets_) && cell_ && phase_ < Phase::kDraining) {
    (void)cell_->signal(SIGKILL);  // leaving the platform kills it all the same
  }
}

base::Status Agent::on_frame(const wire::FrameView& frame) {
  switch (frame.type) {
    case FrameType::kHello:
      return on_hello(frame.payload);
    case FrameType::kEntropy:
      if (phase_ != Phase::kWorkload || frame.payload.size() > wire::kMaxEntropy) {
        return out_of_order("ENTROPY");
      }
      return platform_.add_entropy(frame.payload);
    case FrameType::kClock:
      if (phase_ != Phase::kWorkload) {
        return out_of_order("CLOCK");
      }
      return platform_.set_clock(CR_TRY(wire::decode_clock(frame.payload)).realtime_ns);
    case FrameType::kWorkload:
      return on_workload_piece(frame.payload);
    case FrameType::kSecret:
      return on_secret(frame.payload);
    case FrameType::kRevoke:
      return on_revoke(frame.payload);
    case FrameType::kStart:
      return on_start(frame.payload);
    case FrameType::kStdin:
      return io_.on_stdin(frame.payload);
    case FrameType::kStdinClose:
      io_.on_stdin_close();
      return base::ok();
    case FrameType::kCredit:
      return io_.on_credit(frame.payload);
    case FrameType::kResize:
      return io_.on_resize(frame.payload);
    case FrameType::kExec:
      if (phase_ < Phase::kRunning) {
        return out_of_order("EXEC");
      }
      return phase_ == Phase::kRunning ? execs_.on_frame(frame.payload, *cell_) : base::ok();
    case FrameType::kSignal: {
      const int signo = CR_TRY(wire::decode_signal(frame.payload));
      return cell_ && phase_ < Phase::kDraining ? cell_->signal(signo) : base::ok();
    }
    case FrameType::kShutdown:
      phase_ = Phase::kDone;
      return base::ok();
    case FrameType::kReady:
    case FrameType::kStarted:
    case FrameType::kStdout:
    case FrameType::kStderr:
    case FrameType::kExit:
      break;
  }
  return out_of_order("a frame that only a guest sends");
}

base::Status Agent::on_hello(base::BytesView payload) {
  // Again in a machine restored from a template: another host, another nonce.
  if (phase_ != Phase::kHello && phase_ != Phase::kWorkload) {
    return out_of_order("HELLO");
  }
  const wire::HostHello hello = CR_TRY(wire::decode_host_hello(payload));
  if (hello.protocol != wire::kProtocolVersion) {
    return out_of_order("another protocol version");
  }
  if (::getrandom(nonce_.data(), nonce_.size(), GRND_NONBLOCK) != static_cast<ssize_t>(nonce_.size()) &&
      errno != EAGAIN) {
    return Error::from_errno("getrandom");
  }
  utsname name{};
  (void)::uname(&name);
  channel_.send(FrameType::kHello, wire::encode(wire::GuestHello{wire::kProtocolVersion, nonce_, hello.nonce, name.release}));
  encoded_workload_.clear();
  phase_ = Phase::kWorkload;
  return base::ok();
}

base::Status Agent::on_workload_piece(base::BytesView payload) {
  if (phase_ != Phase::kWorkload || encoded_workload_.size() + payload.size() > wire::kMaxWorkloadBytes) {
    return out_of_order("WORKLOAD");
  }
  encoded_workload_.insert(encoded_workload_.end(), payload.begin(), payload.end());
  if (payload.size() == wire::kMaxPayload) {
    return base::ok();  // more follows
  }
  const auto make_cell = [&]() -> base::Status {
    workload_ = CR_TRY(wire::decode_workload(encoded_workload_));
    encoded_workload_ = base::Bytes();
    CR_CHECK(platform_.prepare(workload_));
    cell_.emplace(CR_TRY(Cell::create(workload_, platform_.cgroup_fd(), channel_.fd())));
    return base::ok();
  };
  const base::Status made = make_cell();
  if (!made.ok()) {
    wire::Exit exit;
    exit.kind = wire::ExitKind::kSetupFailed;
    exit.message = made.error().message();
    end_with(std::move(exit));
    return base::ok();
  }
  phase_ = Phase::kPreparing;
  return base::ok();
}

// One that cannot be written is the end of the cell: no workload starts without what it was promised.
base::Status Agent::on_secret(base::BytesView payload) {
  if (phase_ == Phase::kFlushing) {
    return base::ok();  // the one before it failed, and the host knows by now
  }
  if (phase_ != Phase::kReady || !secrets_) {
    return out_of_order("SECRET");
  }
  const wire::SecretPiece piece = CR_TRY(wire::decode_secret_piece(payload));
  if (const base::Status added = secrets_->add(piece); !added.ok()) {
    wire::Exit exit;
    exit.kind = wire::ExitKind::kSetupFailed;
    exit.message = added.error().message();
    end_with(std::move(exit));
  }
  return base::ok();
}

base::Status Agent::on_revoke(base::BytesView payload) {
  const std::string name = CR_TRY(wire::decode_revoke(payload));
  if (phase_ >= Phase::kDraining) {
    return base::ok();  // they went with the workload
  }
  if (phase_ < Phase::kStarting || !secrets_) {
    return out_of_order("REVOKE");
  }
  if (const base::Status removed = secrets_->remove(name); !removed.ok()) {
    // It must not stay: without its workload the tmpfs is gone.
    platform_.complain("cell-init: " + removed.error().message());
    return cell_->signal(SIGKILL);
  }
  return base::ok();
}

base::Status Agent::on_start(base::BytesView payload) {
  const wire::Start start = CR_TRY(wire::decode_start(payload));
  if (phase_ == Phase::kFlushing && start.echo == nonce_) {
    return base::ok();  // a secret could not be written: EXIT is on its way
  }
  if (phase_ != Phase::kReady || start.echo != nonce_ || (secrets_ && secrets_->pending())) {
    return out_of_order("START");
  }
  phase_ = Phase::kStarting;
  if (platform_.keeps_deadline() && (start.deadline_boot_ns != 0 || workload_.deadline_ms != 0)) {
    const base::BootTime deadline = start.deadline_boot_ns != 0
                                        ? base::BootTime{start.deadline_boot_ns}
                                        : base::BootTime::now() + std::chrono::milliseconds(workload_.deadline_ms);
    timer_ = CR_TRY(base::boot_timer(deadline));
  }
  return cell_->start();
}

base::Status Agent::on_cell() {
  switch (CR_TRY(cell_->report())) {
    case Cell::Event::kNothing:
      break;
    case Cell::Event::kPrepared:
      if (phase_ != Phase::kPreparing) {
        return out_of_order("the namespace init's report");
      }
      io_.open(std::move(cell_->stdio()));
      if (cell_->secrets()) {
        secrets_.emplace(std::move(cell_->secrets()), workload_.uid, workload_.gid);
      }
      phase_ = Phase::kReady;
      channel_.send(FrameType::kReady, {});
      break;
    case Cell::Event::kStarted:
      phase_ = Phase::kRunning;
      channel_.send(FrameType::kStarted, {});
      io_.start();
      break;
    case Cell::Event::kExecStarted:
      execs_.on_started(cell_->exec_report());
      break;
    case Cell::Event::kExecEnded:
      execs_.on_ended(cell_->exec_report());
      break;
    case Cell::Event::kEnded:
      begin_drain();
      break;
  }
  return base::ok();
}

base::Status Agent::on_timer() {
  const base::BootTime now = base::BootTime::now();
  if (phase_ == Phase::kHandingOver || (phase_ == Phase::kDraining && cell_ && cell_->outputs_fd() >= 0)) {
    return on_late_outputs(now);
  }
  if (!cell_ || phase_ >= Phase::kDraining) {
    timer_.reset();
    return base::ok();
  }
  if (stop_sent_boot_ns_ == 0) {
    stop_sent_boot_ns_ = now.ns;
    CR_CHECK(base::rearm_boot_timer(timer_.get(), now + std::chrono::milliseconds(workload_.grace_ms)));
    return cell_->signal(workload_.stop_signal);
  }
  kill_sent_boot_ns_ = now.ns;
  // Stays armed no more; the namespace init cannot survive this.
  CR_CHECK(base::disarm_timer(timer_.get()));
  return cell_->signal(SIGKILL);
}

// Handing over is part of the job's time: it may use the grace, and no more.
base::Status Agent::on_late_outputs(base::BootTime now) {
  if (stop_sent_boot_ns_ == 0) {
    stop_sent_boot_ns_ = exit_.stop_sent_boot_ns = now.ns;
    return base::rearm_boot_timer(timer_.get(), now + std::chrono::milliseconds(workload_.grace_ms));
  }
  kill_sent_boot_ns_ = exit_.kill_sent_boot_ns = now.ns;
  CR_CHECK(base::disarm_timer(timer_.get()));
  if (sender_ && ::syscall(SYS_pidfd_send_signal, sender_.get(), SIGKILL, nullptr, 0) != 0 && errno != ESRCH) {
    return Error::from_errno("kill the sender of outputs");
  }
  return base::ok();
}

// Everything that could write is dead, so what is in the pipes is all there will be.
void Agent::begin_drain() {
  exit_ = cell_->exit();
  exit_.stop_sent_boot_ns = stop_sent_boot_ns_;
  exit_.kill_sent_boot_ns = kill_sent_boot_ns_;
  platform_.describe_end(exit_);
  phase_ = Phase::kDraining;
  secrets_.reset();  // the last hold on their tmpfs
  execs_.drop();     // dead with the workload, and the host knows it
  io_.begin_drain();
}

// In a process of its own: the walk and its reader must not keep this loop from its deadline.
void Agent::begin_outputs() {
  const int mount = cell_->outputs_fd();
  if (mount < 0 || kill_sent_boot_ns_ != 0) {  // nothing to hand over, or no time left for it
    end_with(std::move(exit_));
    return;
  }
  const pid_t pid = ::fork();  // this process has one thread
  if (pid == 0) {
    const auto send = [&]() -> base::Status {
      const base::UniqueFd port = CR_TRY(platform_.open_outputs());
      return send_outputs(mount, *workload_.outputs, port.get());
    };
    // The host sees by itself what it did not get.
    ::_exit(send().ok() ? 0 : 1);
  }
  if (pid > 0) {
    sender_.reset(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  }
  if (!sender_) {
    platform_.complain("cell-init: nobody hands over /outputs");
    end_with(std::move(exit_));
    return;
  }
  phase_ = Phase::kHandingOver;
}

base::Status Agent::on_outputs_sent() {
  siginfo_t info{};
  if (::waitid(P_PIDFD, static_cast<id_t>(sender_.get()), &info, WEXITED | WNOHANG) != 0 && errno != EINTR) {
    return Error::from_errno("waitid sender of outputs");
  }
  if (info.si_pid != 0) {
    sender_.reset();
    end_with(std::move(exit_));
  }
  return base::ok();
}

void Agent::end_with(wire::Exit exit) {
  channel_.send(FrameType::kExit, wire::encode(exit));
  io_.close();
  timer_.reset();
  phase_ = Phase::kFlushing;
  phase_ends_ = Deadline::after(kFlushPatience);
}

}  // namespace cellrund::guest
