// Drives one cell over its control channel, as the shim and the daemon do, for tests: a blocking loop around
// wire::HostSession that collects what happens.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "base/fd.hpp"
#include "shim/wire/host_session.hpp"

namespace cellrund::tests {

struct CellRun {
  std::string kernel_release;
  std::string out;
  std::string err;
  std::optional<wire::Exit> exit;
  std::string failure;  // why there is no exit: protocol error, end of stream, deadline
  bool started = false;
  base::Nanoseconds to_hello{0}, to_ready{0}, to_started{0}, to_output{0}, to_exit{0};  // since the call
};

class CellDriver {
 public:
  CellDriver(base::UniqueFd fd, wire::HostSession session) : fd_(std::move(fd)), session_(std::move(session)) {}

  // Called once the workload has started.
  std::function<void(CellDriver&)> on_started;
  // Called for each piece of output, before its room is given back. False: keep the room.
  std::function<bool(CellDriver&, const wire::OutputEvent&)> on_output;
  std::int64_t deadline_boot_ns = 0;
  std::string stdin_bytes;
  bool close_stdin = true;

  // HELLO to EXIT and SHUTDOWN. Returns early, with `failure`, at the deadline.
  CellRun run(const wire::Workload& workload, base::Deadline deadline);

  [[nodiscard]] wire::HostSession& session() noexcept { return session_; }
  // Gives the descriptor up: the host is gone.
  void hang_up() noexcept { fd_.reset(); }

 private:
  void write_out();
  void feed_stdin();
  bool handle(wire::Event& event, const wire::Workload& workload, base::BootTime begin, CellRun& run);

  base::UniqueFd fd_;
  wire::HostSession session_;
};

}  // namespace cellrund::tests
