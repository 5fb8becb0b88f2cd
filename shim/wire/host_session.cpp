#include "shim/wire/host_session.hpp"

#include <sys/random.h>

#include <algorithm>
#include <array>
#include <limits>

#include "base/clock.hpp"

namespace cellrund::wire {
namespace {

using base::Errc;
using base::Error;

// What may stand in the channel before the guest's HELLO: the rest of a frame of an earlier opener.
constexpr std::uint64_t kMaxLeadingGarbage = kMaxPayload + kHeaderBytes;
// Credit is announced in steps, not for every few bytes.
constexpr std::uint32_t kCreditStep = kOutputWindow / 4;
// No stdin window larger than this makes sense; a guest that announces more is not ours.
constexpr std::uint32_t kMaxStdinCredit = 1024 * 1024;
// Consumed output is kept at the front of the buffer until it is worth moving the rest.
constexpr std::size_t kCompactAt = 64 * 1024;
constexpr std::size_t kEntropyBytes = 32;
// Well-formed frames of an earlier session that may stand before the answer to our HELLO.
constexpr std::uint64_t kMaxStale = 1024 * 1024;

base::Status fill_random(std::span<std::uint8_t> out) {
  if (::getrandom(out.data(), out.size(), 0) != static_cast<ssize_t>(out.size())) {
    return Error::from_errno("getrandom");
  }
  return base::ok();
}

// Whether an Exit of this kind fits a process that has, or has not, said STARTED.
bool fits(ExitKind kind, bool started) noexcept {
  switch (kind) {
    case ExitKind::kExited:
      return started;
    case ExitKind::kSignaled:  // a SIGKILL may overtake exec
      return true;
    case ExitKind::kExecFailed:
    case ExitKind::kSetupFailed:
      return !started;
  }
  return false;
}

std::size_t output_index(Stream stream) noexcept { return stream == Stream::kStdout ? 0 : 1; }

}  // namespace

base::Result<HostSession> HostSession::create(Mode mode) {
  Nonce nonce{};
  CR_CHECK(fill_random(nonce));
  return HostSession(mode, nonce);
}

HostSession::HostSession(Mode mode, const Nonce& nonce) : mode_(mode), nonce_(nonce) {
  queue(FrameType::kHello, encode(HostHello{kProtocolVersion, nonce}));
}

base::BytesView HostSession::output() const noexcept { return base::BytesView(output_).subspan(output_sent_); }

void HostSession::consumed(std::size_t bytes) {
  output_sent_ = std::min(output_sent_ + bytes, output_.size());
  if (output_sent_ == output_.size()) {
    clear_output();
  } else if (output_sent_ >= kCompactAt) {
    output_.erase(output_.begin(), output_.begin() + static_cast<std::ptrdiff_t>(output_sent_));
    output_sent_ = 0;
  }
}

void HostSession::queue(FrameType type, base::BytesView payload) { append_frame(output_, type, payload); }

void HostSession::queue_for(std::uint32_t process, FrameType type, base::BytesView payload) {
  if (process == 0) {
    queue(type, payload);
  } else {
    queue(FrameType::kExec, encode(ExecFrame{process, type, payload}));
  }
}

HostSession::Peer* HostSession::living(std::uint32_t process) {
  if (state_ != State::kStartSent && state_ != State::kRunning) {
    return nullptr;
  }
  if (process == 0) {
    return &first_;
  }
  const auto found = execs_.find(process);
  return found == execs_.end() ? nullptr : &found->second;
}

void HostSession::clear_output() noexcept {
  if (std::exchange(output_is_secret_, false)) {
    output_ = base::WipedBytes();
  }
  output_.clear();
  output_sent_ = 0;
}

void HostSession::fail(std::vector<Event>& events, std::string what) {
  state_ = State::kFailed;
  clear_output();
  events.emplace_back(ProtocolErrorEvent{std::move(what)});
}

std::vector<Event> HostSession::feed(base::BytesView bytes) {
  std::vector<Event> events;
  while (state_ != State::kFailed) {
    const std::optional<FrameView> frame = parser_.next(bytes);
    const std::uint64_t allowed = state_ == State::kHelloSent ? kMaxLeadingGarbage : skipped_before_hello_;
    if (parser_.skipped() > allowed) {
      fail(events, "bytes that are no frame");
      break;
    }
    if (!frame) {
      break;
    }
    handle(*frame, events);
  }
  return events;
}

void HostSession::handle(const FrameView& frame, std::vector<Event>& events) {
  if (state_ == State::kHelloSent) {
    // Well-formed frames of an earlier session may stand before the answer too; only an answer to our nonce counts.
    if (frame.type != FrameType::kHello) {
      stale_bytes_ += kHeaderBytes + frame.payload.size();
      if (stale_bytes_ > kMaxStale) {
        fail(events, "no HELLO among the first frames");
      }
      return;
    }
    auto hello = decode_guest_hello(frame.payload);
    if (!hello.ok() || hello->protocol != kProtocolVersion) {
      fail(events, hello.ok() ? "guest speaks another protocol version" : "malformed HELLO");
      return;
    }
    if (hello->echo != nonce_) {
      stale_bytes_ += kHeaderBytes + frame.payload.size();
      if (stale_bytes_ > kMaxStale) {
        fail(events, "HELLO answers another session");
      }
      return;
    }
    guest_nonce_ = hello->nonce;
    skipped_before_hello_ = parser_.skipped();
    state_ = State::kHello;
    events.emplace_back(HelloEvent{std::move(hello->kernel_release)});
    return;
  }
  switch (frame.type) {
    case FrameType::kReady:
      if (state_ != State::kWorkloadSent || !frame.payload.empty()) {
        break;
      }
      state_ = State::kReady;
      events.emplace_back(ReadyEvent{});
      return;
    case FrameType::kStarted:
      if (state_ != State::kStartSent || !frame.payload.empty()) {
        break;
      }
      state_ = State::kRunning;
      first_.started = true;
      events.emplace_back(StartedEvent{});
      return;
    case FrameType::kStdout:
      handle_output(0, Stream::kStdout, frame.payload, events);
      return;
    case FrameType::kStderr:
      handle_output(0, Stream::kStderr, frame.payload, events);
      return;
    case FrameType::kCredit:
      handle_credit(0, frame.payload, events);
      return;
    case FrameType::kExit: {
      auto exit = decode_exit(frame.payload);
      if (!exit.ok()) {
        break;
      }
      if (!may_end_with(exit->kind)) {
        break;
      }
      state_ = State::kExited;
      events.emplace_back(ExitEvent{std::move(exit).value()});
      return;
    }
    case FrameType::kExec:
      handle_exec(frame.payload, events);
      return;
    case FrameType::kHello:
    case FrameType::kEntropy:
    case FrameType::kClock:
    case FrameType::kWorkload:
    case FrameType::kStart:
    case FrameType::kStdin:
    case FrameType::kStdinClose:
    case FrameType::kSignal:
    case FrameType::kShutdown:
    case FrameType::kResize:
    case FrameType::kSecret:
    case FrameType::kRevoke:
      break;
  }
  fail(events, "frame of type " + std::to_string(static_cast<unsigned>(frame.type)) + " is malformed or out of order");
}

bool HostSession::may_end_with(ExitKind kind) const noexcept {
  if (state_ == State::kWorkloadSent || state_ == State::kReady) {
    return kind == ExitKind::kSetupFailed;
  }
  return (state_ == State::kStartSent || state_ == State::kRunning) && fits(kind, first_.started);
}

void HostSession::handle_exec(base::BytesView payload, std::vector<Event>& events) {
  const auto frame = decode_exec_frame(payload);
  Peer* const peer = frame.ok() && state_ == State::kRunning ? living(frame->process) : nullptr;
  if (peer != nullptr) {
    switch (frame->type) {
      case FrameType::kStarted:
        if (!peer->started && frame->payload.empty()) {
          peer->started = true;
          events.emplace_back(StartedEvent{frame->process});
          return;
        }
        break;
      case FrameType::kStdout:
      case FrameType::kStderr:
        handle_output(frame->process, frame->type == FrameType::kStdout ? Stream::kStdout : Stream::kStderr,
                      frame->payload, events);
        return;
      case FrameType::kCredit:
        handle_credit(frame->process, frame->payload, events);
        return;
      case FrameType::kExit: {
        auto exit = decode_exit(frame->payload);
        if (exit.ok() && fits(exit->kind, peer->started)) {
          execs_.erase(frame->process);
          events.emplace_back(ExitEvent{std::move(exit).value(), frame->process});
          return;
        }
        break;
      }
      default:
        break;
    }
  }
  fail(events, "EXEC is malformed, out of order, or of no process that was asked for");
}

void HostSession::handle_output(std::uint32_t process, Stream stream, base::BytesView data, std::vector<Event>& events) {
  Peer* const peer = living(process);
  if (peer == nullptr || !peer->started || data.empty() || data.size() > peer->output_credit[output_index(stream)]) {
    fail(events, "output out of order or beyond its credit");
    return;
  }
  peer->output_credit[output_index(stream)] -= static_cast<std::uint32_t>(data.size());
  events.emplace_back(OutputEvent{stream, base::Bytes(data.begin(), data.end()), process});
}

void HostSession::handle_credit(std::uint32_t process, base::BytesView payload, std::vector<Event>& events) {
  const auto credit = decode_credit(payload);
  Peer* const peer = living(process);
  // Credit is for what was read. A guest that gives it while all that it was sent still waits here has read nothing, and would
  // only make the queue grow; control frames alone never fill it so far.
  if (!credit.ok() || peer == nullptr || !peer->started || credit->stream != Stream::kStdin ||
      credit->bytes > kMaxStdinCredit || peer->stdin_credit + credit->bytes > kMaxStdinCredit ||
      output().size() > kMaxOutput - kMaxExecs * kStdinWindow) {
    fail(events, "malformed CREDIT");
    return;
  }
  peer->stdin_credit += credit->bytes;
  events.emplace_back(StdinRoomEvent{process});
}

base::Status HostSession::send_workload(const Workload& workload) {
  if (state_ != State::kHello) {
    return Error(Errc::kFailedPrecondition, "send workload: the guest has not said hello, or has one already");
  }
  const base::Bytes encoded = CR_TRY(encode(workload));
  if (mode_ == Mode::kMicrovm) {
    std::array<std::uint8_t, kEntropyBytes> entropy{};
    CR_CHECK(fill_random(entropy));
    queue(FrameType::kEntropy, entropy);
    const base::WallTime now = base::WallTime::now();
    queue(FrameType::kClock, encode(Clock{now.seconds * 1'000'000'000 + now.nanos}));
  }
  // Pieces of a full payload; the first that is shorter, maybe empty, is the last.
  base::BytesView rest(encoded);
  while (true) {
    const std::size_t size = std::min(rest.size(), kMaxPayload);
    queue(FrameType::kWorkload, rest.first(size));
    rest = rest.subspan(size);
    if (size < kMaxPayload) {
      break;
    }
  }
  state_ = State::kWorkloadSent;
  return base::ok();
}

base::Status HostSession::send_secret(const NamedSecret& secret) {
  if (state_ != State::kReady) {
    return Error(Errc::kFailedPrecondition, "send a secret: the guest is not ready for it");
  }
  output_is_secret_ = true;
  base::BytesView rest(secret.value.bytes());
  do {
    const base::BytesView piece = rest.first(std::min(rest.size(), kMaxSecretPiece));
    rest = rest.subspan(piece.size());
    queue(FrameType::kSecret, encode(SecretPiece{secret.name, rest.empty(), piece}));
  } while (!rest.empty());
  return base::ok();
}

bool HostSession::revoke(std::string_view name) {
  if ((state_ != State::kStartSent && state_ != State::kRunning) || !has_room_for_control()) {
    return false;
  }
  queue(FrameType::kRevoke, encode_revoke(name));
  return true;
}

base::Status HostSession::start(std::int64_t deadline_boot_ns) {
  if (state_ != State::kReady) {
    return Error(Errc::kFailedPrecondition, "start workload: the guest is not ready");
  }
  queue(FrameType::kStart, encode(Start{guest_nonce_, deadline_boot_ns}));
  state_ = State::kStartSent;
  return base::ok();
}

std::size_t HostSession::write_stdin(base::BytesView bytes, std::uint32_t process) {
  Peer* const peer = living(process);
  if (peer == nullptr || peer->stdin_closed) {
    return 0;
  }
  const std::size_t taken = std::min<std::size_t>(bytes.size(), peer->stdin_credit);
  base::BytesView rest = bytes.first(taken);
  while (!rest.empty()) {
    const std::size_t size = std::min(rest.size(), kMaxExecPayload);
    queue_for(process, FrameType::kStdin, rest.first(size));
    rest = rest.subspan(size);
  }
  peer->stdin_credit -= static_cast<std::uint32_t>(taken);
  return taken;
}

void HostSession::close_stdin(std::uint32_t process) {
  Peer* const peer = living(process);
  if (peer != nullptr && !peer->stdin_closed) {
    peer->stdin_closed = true;
    queue_for(process, FrameType::kStdinClose, {});
  }
}

void HostSession::signal(int signo, std::uint32_t process) {
  // A guest that stopped reading gets no endless queue of signals: killing its machine is the owner's remedy.
  if (living(process) != nullptr && has_room_for_control()) {
    queue_for(process, FrameType::kSignal, encode_signal(signo));
  }
}

void HostSession::resize(WindowSize size, std::uint32_t process) {
  if (living(process) != nullptr && has_room_for_control()) {
    queue_for(process, FrameType::kResize, encode(size));
  }
}

void HostSession::grant(Stream stream, std::size_t bytes, std::uint32_t process) {
  Peer* const peer = living(process);
  if (peer == nullptr || !peer->started || stream == Stream::kStdin) {
    return;
  }
  const std::size_t index = output_index(stream);
  const std::uint32_t in_use = kOutputWindow - peer->output_credit[index] - peer->ungranted[index];
  peer->ungranted[index] += static_cast<std::uint32_t>(std::min<std::size_t>(bytes, in_use));
  // A guest that sends without end and never reads runs out of credit.
  if (peer->ungranted[index] >= kCreditStep && output().size() < kMaxOutput - kMaxPayload) {
    queue_for(process, FrameType::kCredit, encode(Credit{stream, peer->ungranted[index]}));
    peer->output_credit[index] += peer->ungranted[index];
    peer->ungranted[index] = 0;
  }
}

base::Result<std::uint32_t> HostSession::exec(const Process& process) {
  if (state_ != State::kRunning) {
    return Error(Errc::kFailedPrecondition, "exec: the workload does not run");
  }
  if (execs_.size() >= kMaxExecs || !has_room_for_control()) {
    return Error(Errc::kResourceExhausted,
                 execs_.size() >= kMaxExecs ? "exec: " + std::to_string(kMaxExecs) + " processes run already"
                                            : std::string("exec: the guest does not read"));
  }
  const base::Bytes encoded = CR_TRY(encode_process(process));
  const std::uint32_t number = ++last_exec_;
  execs_.emplace(number, Peer{});
  queue_for(number, FrameType::kWorkload, encoded);
  return number;
}

void HostSession::shutdown() {
  if (state_ != State::kFailed && !shutdown_sent_) {
    shutdown_sent_ = true;
    queue(FrameType::kShutdown, {});
  }
}

}  // namespace cellrund::wire
