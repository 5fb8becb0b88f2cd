#include "tests/support/cell_driver.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>

namespace cellrund::tests {

void CellDriver::write_out() {
  while (!session_.output().empty()) {
    const base::BytesView bytes = session_.output();
    const ssize_t n = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n <= 0) {
      return;
    }
    session_.consumed(static_cast<std::size_t>(n));
  }
}

void CellDriver::feed_stdin() {
  const std::size_t taken = session_.write_stdin(base::as_bytes(stdin_bytes));
  stdin_bytes.erase(0, taken);
  if (stdin_bytes.empty() && close_stdin) {
    session_.close_stdin();
  }
}

bool CellDriver::handle(wire::Event& event, const wire::Workload& workload, base::BootTime begin, CellRun& run) {
  const base::Nanoseconds now = base::BootTime::now() - begin;
  if (auto* hello = std::get_if<wire::HelloEvent>(&event)) {
    run.kernel_release = hello->kernel_release;
    run.to_hello = now;
    const auto sent = session_.send_workload(workload);
    if (!sent.ok()) {
      run.failure = sent.error().message();
      return false;
    }
  } else if (std::holds_alternative<wire::ReadyEvent>(event)) {
    run.to_ready = now;
    (void)session_.start(deadline_boot_ns);  // cannot fail after Ready
    feed_stdin();
  } else if (std::holds_alternative<wire::StartedEvent>(event)) {
    run.started = true;
    run.to_started = now;
    if (on_started) {
      on_started(*this);
    }
  } else if (auto* output = std::get_if<wire::OutputEvent>(&event)) {
    if (run.out.empty() && run.err.empty()) {
      run.to_output = now;
    }
    (output->stream == wire::Stream::kStdout ? run.out : run.err).append(base::as_text(output->data));
    if (!on_output || on_output(*this, *output)) {
      session_.grant(output->stream, output->data.size());
    }
  } else if (std::holds_alternative<wire::StdinRoomEvent>(event)) {
    feed_stdin();
  } else if (auto* ended = std::get_if<wire::ExitEvent>(&event)) {
    run.exit = ended->exit;
    run.to_exit = now;
    session_.shutdown();
    write_out();
    return false;
  } else if (auto* error = std::get_if<wire::ProtocolErrorEvent>(&event)) {
    run.failure = "protocol error: " + error->what;
    return false;
  }
  return true;
}

CellRun CellDriver::run(const wire::Workload& workload, base::Deadline deadline) {
  CellRun run;
  const base::BootTime begin = base::BootTime::now();
  std::array<std::uint8_t, 65536> buffer{};
  while (true) {
    write_out();
    if (!fd_) {
      run.failure = "hung up";
      return run;
    }
    pollfd poll_fd{fd_.get(), static_cast<short>(POLLIN | (session_.output().empty() ? 0 : POLLOUT)), 0};
    if (::poll(&poll_fd, 1, deadline.poll_timeout_ms()) == 0) {
      run.failure = "deadline";
      return run;
    }
    if ((poll_fd.revents & (POLLIN | POLLHUP | POLLERR)) == 0) {
      continue;
    }
    const ssize_t n = ::recv(fd_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
      continue;
    }
    if (n <= 0) {
      run.failure = "end of stream";
      return run;
    }
    for (wire::Event& event : session_.feed({buffer.data(), static_cast<std::size_t>(n)})) {
      if (!handle(event, workload, begin, run)) {
        return run;
      }
    }
  }
}

}  // namespace cellrund::tests
