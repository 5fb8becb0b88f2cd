#include "shim/guest/agent.hpp"

#include <poll.h>
#include <signal.h>
#include <sys/random.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <utility>

namespace cellrund::guest {
namespace {

using base::Deadline;
using base::Errc;
using base::Error;
using wire::FrameType;
using wire::Stream;

// After the workload's end: as long as the host takes output, but never longer than this without progress.
constexpr auto kDrainPatience = std::chrono::seconds(5);
// For the EXIT frame to leave, and for the host to say SHUTDOWN.
constexpr auto kFlushPatience = std::chrono::seconds(2);
constexpr auto kReopenInterval = std::chrono::milliseconds(20);
constexpr std::size_t kChunk = 32 * 1024;  // what virtio_console moves in one write

Error out_of_order(const char* what) { return Error(Errc::kFailedPrecondition, std::string("host: ") + what); }

}  // namespace

base::Status Agent::run() {
  while (phase_ != Phase::kDone) {
    CR_CHECK(turn());
  }
  return base::ok();
}

bool Agent::can_pump(const OutputStream& stream) const noexcept {
  if (!stream.pipe || (phase_ != Phase::kRunning && phase_ != Phase::kDraining)) {
    return false;
  }
  return host_gone_ || (stream.credit > 0 && channel_.has_room());
}

std::optional<Deadline> Agent::phase_deadline() const {
  if (phase_ends_ && quiet_until_) {
    return phase_ends_->remaining() < quiet_until_->remaining() ? phase_ends_ : quiet_until_;
  }
  return phase_ends_ ? phase_ends_ : quiet_until_;
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
  // A negative descriptor is passed over by poll(2).
  std::array<pollfd, 6> polls{{
      {listen ? channel_.fd() : -1, channel_events, 0},
      {cell_ && phase_ < Phase::kDraining ? cell_->report_fd() : -1, POLLIN, 0},
      {timer_.get(), POLLIN, 0},
      {stdin_.empty() ? -1 : stdin_pipe_.get(), POLLOUT, 0},
      {can_pump(outputs_[0]) ? outputs_[0].pipe.get() : -1, POLLIN, 0},
      {can_pump(outputs_[1]) ? outputs_[1].pipe.get() : -1, POLLIN, 0},
  }};
  const auto until = phase_deadline();
  if (::poll(polls.data(), polls.size(), until ? until->poll_timeout_ms() : -1) < 0) {
    return errno == EINTR ? base::ok() : base::Status(Error::from_errno("poll"));
  }
  // The deadline first: whatever else goes on must not delay it.
  if (polls[2].revents != 0) {
    CR_CHECK(on_timer());
  }
  if (polls[0].revents != 0) {
    CR_CHECK(on_channel(polls[0].revents));
  }
  if (polls[3].revents != 0) {
    pump_stdin();
  }
  if (polls[4].revents != 0) {
    pump_output(Stream::kStdout);
  }
  if (polls[5].revents != 0) {
    pump_output(Stream::kStderr);
  }
  if (polls[1].revents != 0) {
    CR_CHECK(on_cell());
  }
  if (phase_ == Phase::kDraining) {
    const bool empty = !outputs_[0].pipe && !outputs_[1].pipe;
    if (empty || (phase_ends_ && phase_ends_->expired())) {
      finish_drain(!empty);
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
// deadline, unheard, and without a deadline it ends here.
void Agent::on_host_gone() {
  host_gone_ = true;
  channel_.mark_lost();
  if (phase_ < Phase::kStarting) {
    phase_ = Phase::kDone;
  } else if (!timer_ && cell_ && phase_ < Phase::kDraining) {
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
    case FrameType::kStart:
      return on_start(frame.payload);
    case FrameType::kStdin:
      return on_stdin(frame.payload);
    case FrameType::kStdinClose:
      stdin_closing_ = true;
      pump_stdin();
      return base::ok();
    case FrameType::kCredit:
      return on_credit(frame.payload);
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
  outputs_[0].pipe = std::move(cell_->stdio().stdout_read);
  outputs_[1].pipe = std::move(cell_->stdio().stderr_read);
  stdin_pipe_ = std::move(cell_->stdio().stdin_write);
  phase_ = Phase::kPreparing;
  return base::ok();
}

base::Status Agent::on_start(base::BytesView payload) {
  const wire::Start start = CR_TRY(wire::decode_start(payload));
  if (phase_ != Phase::kReady || start.echo != nonce_) {
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

base::Status Agent::on_stdin(base::BytesView payload) {
  if (stdin_.size() + payload.size() > wire::kStdinWindow || stdin_closing_) {
    return out_of_order("STDIN beyond its credit");
  }
  stdin_.insert(stdin_.end(), payload.begin(), payload.end());
  pump_stdin();
  return base::ok();
}

base::Status Agent::on_credit(base::BytesView payload) {
  const wire::Credit credit = CR_TRY(wire::decode_credit(payload));
  if (credit.stream == Stream::kStdin) {
    return out_of_order("CREDIT for stdin");
  }
  OutputStream& stream = output(credit.stream);
  if (credit.bytes > wire::kOutputWindow - stream.credit) {
    return out_of_order("CREDIT beyond the window");
  }
  stream.credit += credit.bytes;
  if (phase_ == Phase::kDraining) {
    phase_ends_ = Deadline::after(kDrainPatience);
  }
  return base::ok();
}

void Agent::pump_stdin() {
  std::size_t disposed = 0;
  if (!stdin_.empty() && stdin_pipe_) {
    const ssize_t n = ::write(stdin_pipe_.get(), stdin_.data(), stdin_.size());
    if (n > 0) {
      disposed = static_cast<std::size_t>(n);
    } else if (n < 0 && errno != EAGAIN && errno != EINTR) {
      stdin_pipe_.reset();  // EPIPE: the workload does not read
    }
  }
  if (!stdin_pipe_) {
    disposed = stdin_.size();
  }
  if (disposed > 0) {
    stdin_.erase(stdin_.begin(), stdin_.begin() + static_cast<std::ptrdiff_t>(disposed));
    stdin_owed_ += static_cast<std::uint32_t>(disposed);
  }
  // Input may arrive before the exec is done; the host takes CREDIT only after STARTED.
  if (stdin_owed_ > 0 && phase_ == Phase::kRunning) {
    channel_.send(FrameType::kCredit, wire::encode(wire::Credit{Stream::kStdin, std::exchange(stdin_owed_, 0)}));
  }
  if (stdin_closing_ && stdin_.empty()) {
    stdin_pipe_.reset();
  }
}

void Agent::pump_output(Stream which) {
  OutputStream& stream = output(which);
  std::array<std::uint8_t, kChunk> buffer;  // NOLINT: filled by read
  const std::size_t limit = host_gone_ ? kChunk : std::min<std::size_t>(kChunk, stream.credit);
  const ssize_t n = ::read(stream.pipe.get(), buffer.data(), limit);
  if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
    stream.pipe.reset();
    return;
  }
  if (n < 0 || host_gone_) {
    return;
  }
  stream.credit -= static_cast<std::uint32_t>(n);
  channel_.send(which == Stream::kStdout ? FrameType::kStdout : FrameType::kStderr,
                base::BytesView(buffer.data(), static_cast<std::size_t>(n)));
  if (phase_ == Phase::kDraining) {
    phase_ends_ = Deadline::after(kDrainPatience);
  }
}

base::Status Agent::on_cell() {
  switch (CR_TRY(cell_->report())) {
    case Cell::Event::kNothing:
      break;
    case Cell::Event::kPrepared:
      phase_ = Phase::kReady;
      channel_.send(FrameType::kReady, {});
      break;
    case Cell::Event::kStarted:
      phase_ = Phase::kRunning;
      channel_.send(FrameType::kStarted, {});
      pump_stdin();
      break;
    case Cell::Event::kEnded:
      begin_drain();
      break;
  }
  return base::ok();
}

base::Status Agent::on_timer() {
  const base::BootTime now = base::BootTime::now();
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

// Everything that could write is dead, so what is in the pipes is all there will be.
void Agent::begin_drain() {
  exit_ = cell_->exit();
  exit_.stop_sent_boot_ns = stop_sent_boot_ns_;
  exit_.kill_sent_boot_ns = kill_sent_boot_ns_;
  platform_.describe_end(exit_);
  const bool ran = phase_ == Phase::kRunning;
  phase_ = Phase::kDraining;
  phase_ends_ = Deadline::after(kDrainPatience);
  if (!ran) {
    outputs_[0].pipe.reset();
    outputs_[1].pipe.reset();
  }
}

void Agent::finish_drain(bool truncated) {
  exit_.output_truncated = truncated;
  end_with(std::move(exit_));
}

void Agent::end_with(wire::Exit exit) {
  channel_.send(FrameType::kExit, wire::encode(exit));
  outputs_[0].pipe.reset();
  outputs_[1].pipe.reset();
  stdin_pipe_.reset();
  stdin_.clear();
  timer_.reset();
  phase_ = Phase::kFlushing;
  phase_ends_ = Deadline::after(kFlushPatience);
}

}  // namespace cellrund::guest
