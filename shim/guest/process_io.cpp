#include "shim/guest/process_io.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "shim/guest/terminal.hpp"

namespace cellrund::guest {
namespace {

using base::Deadline;
using base::Errc;
using base::Error;
using wire::FrameType;
using wire::Stream;

constexpr auto kDrainPatience = std::chrono::seconds(5);
constexpr std::size_t kChunk = 32 * 1024;  // what virtio_console moves in one write

Error out_of_order(const char* what) { return Error(Errc::kFailedPrecondition, std::string("host: ") + what); }

}  // namespace

void ProcessIo::open(StdioPipes pipes) {
  opened_ = true;
  stdin_pipe_ = std::move(pipes.stdin_write);
  stdout_.pipe = std::move(pipes.stdout_read);
  stderr_.pipe = std::move(pipes.stderr_read);
  if (early_size_) {
    (void)set_window_size(stdout_.pipe.get(), *early_size_);
  }
  pump_stdin();
}

void ProcessIo::start() {
  started_ = true;
  pump_stdin();
}

void ProcessIo::begin_drain() {
  if (!started_) {
    close();
  }
  drain_ends_ = Deadline::after(kDrainPatience);
}

bool ProcessIo::drain(bool host_gone) {
  // All that it wrote is there already. Something that it left behind may hold the pipe open, so an empty one is at its end.
  for (const auto& [output, type] : {std::pair{&stdout_, FrameType::kStdout}, std::pair{&stderr_, FrameType::kStderr}}) {
    while (can_pump(*output, host_gone)) {
      if (!pump(*output, type, host_gone)) {
        output->pipe.reset();
      }
    }
  }
  return !truncated() || (drain_ends_ && drain_ends_->expired());
}

bool ProcessIo::truncated() const noexcept { return stdout_.pipe || stderr_.pipe; }

void ProcessIo::close() noexcept {
  stdout_.pipe.reset();
  stderr_.pipe.reset();
  stdin_pipe_.reset();
  stdin_.clear();
  drain_ends_.reset();
}

void ProcessIo::send(FrameType type, base::BytesView payload) {
  if (number_ == 0) {
    channel_.send(type, payload);
  } else {
    channel_.send(FrameType::kExec, wire::encode(wire::ExecFrame{number_, type, payload}));
  }
}

base::Status ProcessIo::on_stdin(base::BytesView payload) {
  if (stdin_.size() + payload.size() > wire::kStdinWindow || stdin_closing_) {
    return out_of_order("STDIN beyond its credit");
  }
  stdin_.insert(stdin_.end(), payload.begin(), payload.end());
  pump_stdin();
  return base::ok();
}

void ProcessIo::on_stdin_close() {
  stdin_closing_ = true;
  pump_stdin();
}

base::Status ProcessIo::on_credit(base::BytesView payload) {
  const wire::Credit credit = CR_TRY(wire::decode_credit(payload));
  if (credit.stream == Stream::kStdin) {
    return out_of_order("CREDIT for stdin");
  }
  Output& output = credit.stream == Stream::kStdout ? stdout_ : stderr_;
  if (credit.bytes > wire::kOutputWindow - output.credit) {
    return out_of_order("CREDIT beyond the window");
  }
  output.credit += credit.bytes;
  if (drain_ends_) {
    drain_ends_ = Deadline::after(kDrainPatience);
  }
  return base::ok();
}

base::Status ProcessIo::on_resize(base::BytesView payload) {
  const wire::WindowSize size = CR_TRY(wire::decode_window_size(payload));
  if (!opened_) {
    early_size_ = size;
  } else if (stdout_.pipe) {
    (void)set_window_size(stdout_.pipe.get(), size);  // a pipe has no size
  }
  return base::ok();
}

ProcessIo::Polls ProcessIo::polls(bool host_gone) const noexcept {
  // A negative descriptor is passed over by poll(2).
  return {{{stdin_.empty() ? -1 : stdin_pipe_.get(), POLLOUT, 0},
           {can_pump(stdout_, host_gone) ? stdout_.pipe.get() : -1, POLLIN, 0},
           {can_pump(stderr_, host_gone) ? stderr_.pipe.get() : -1, POLLIN, 0}}};
}

void ProcessIo::handle(const pollfd* polls, bool host_gone) {
  if (polls[0].revents != 0) {
    pump_stdin();
  }
  if (polls[1].revents != 0) {
    (void)pump(stdout_, FrameType::kStdout, host_gone);
  }
  if (polls[2].revents != 0) {
    (void)pump(stderr_, FrameType::kStderr, host_gone);
  }
}

bool ProcessIo::can_pump(const Output& output, bool host_gone) const noexcept {
  return output.pipe && started_ && (host_gone || (output.credit > 0 && channel_.has_room()));
}

void ProcessIo::pump_stdin() {
  if (!opened_) {
    return;
  }
  std::size_t disposed = 0;
  if (!stdin_.empty() && stdin_pipe_) {
    const ssize_t n = ::write(stdin_pipe_.get(), stdin_.data(), stdin_.size());
    if (n > 0) {
      disposed = static_cast<std::size_t>(n);
    } else if (n < 0 && errno != EAGAIN && errno != EINTR) {
      stdin_pipe_.reset();  // EPIPE: the process does not read
    }
  }
  if (!stdin_pipe_) {
    disposed = stdin_.size();
  }
  if (disposed > 0) {
    stdin_.erase(stdin_.begin(), stdin_.begin() + static_cast<std::ptrdiff_t>(disposed));
    stdin_owed_ += static_cast<std::uint32_t>(disposed);
  }
  // Input may arrive before the exec is done; the host takes CREDIT only between STARTED and EXIT.
  if (stdin_owed_ > 0 && started_ && !drain_ends_) {
    send(FrameType::kCredit, wire::encode(wire::Credit{Stream::kStdin, std::exchange(stdin_owed_, 0)}));
  }
  if (stdin_closing_ && stdin_.empty()) {
    stdin_pipe_.reset();
  }
}

bool ProcessIo::pump(Output& output, FrameType type, bool host_gone) {
  std::array<std::uint8_t, kChunk> buffer;  // NOLINT: filled by read
  const std::size_t limit = host_gone ? kChunk : std::min<std::size_t>(kChunk, output.credit);
  const ssize_t n = ::read(output.pipe.get(), buffer.data(), limit);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
    return errno == EINTR;
  }
  if (n <= 0) {
    output.pipe.reset();  // a terminal without a process says EIO (pty(7))
    return true;
  }
  if (host_gone) {
    return true;
  }
  output.credit -= static_cast<std::uint32_t>(n);
  send(type, base::BytesView(buffer.data(), static_cast<std::size_t>(n)));
  if (drain_ends_) {
    drain_ends_ = Deadline::after(kDrainPatience);
  }
  return true;
}

}  // namespace cellrund::guest
