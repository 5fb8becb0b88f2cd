#include "shim/guest/execs.hpp"

namespace cellrund::guest {
namespace {

using base::Errc;
using base::Error;
using wire::FrameType;

}  // namespace

base::Status Execs::on_frame(base::BytesView payload, Cell& cell) {
  const wire::ExecFrame frame = CR_TRY(wire::decode_exec_frame(payload));
  if (frame.type == FrameType::kWorkload) {
    return start(frame.process, frame.payload, cell);
  }
  const auto found = execs_.find(frame.process);
  if (found == execs_.end()) {
    return base::ok();  // it has ended, and our EXIT and the host's frame have crossed
  }
  Exec& exec = found->second;
  switch (frame.type) {
    case FrameType::kStdin:
      return exec.io.on_stdin(frame.payload);
    case FrameType::kStdinClose:
      exec.io.on_stdin_close();
      return base::ok();
    case FrameType::kCredit:
      return exec.io.on_credit(frame.payload);
    case FrameType::kResize:
      return exec.io.on_resize(frame.payload);
    case FrameType::kSignal: {
      const int signo = CR_TRY(wire::decode_signal(frame.payload));
      return exec.exit ? base::ok() : cell.signal_exec(frame.process, signo);
    }
    default:
      return Error(Errc::kFailedPrecondition, "host: an EXEC frame that only a guest sends");
  }
}

base::Status Execs::start(std::uint32_t number, base::BytesView payload, Cell& cell) {
  if (execs_.contains(number) || execs_.size() >= wire::kMaxExecs) {
    return Error(Errc::kFailedPrecondition, "host: EXEC beyond its bounds");
  }
  const wire::Process process = CR_TRY(wire::decode_process(payload));
  Exec& exec = execs_.emplace(number, Exec{ProcessIo(channel_, number), {}}).first->second;
  auto joined = cell.exec(number, process);
  if (!joined.ok()) {
    Cell::ExecReport report{number, {}, {}};
    report.exit.kind = wire::ExitKind::kSetupFailed;
    report.exit.message = joined.error().message();
    on_ended(report);
  } else if (joined->has_value()) {
    exec.io.open(**std::move(joined));
  }
  return base::ok();
}

void Execs::on_started(Cell::ExecReport& report) {
  const auto found = execs_.find(report.number);
  if (found == execs_.end()) {
    return;
  }
  ProcessIo& io = found->second.io;
  io.send(FrameType::kStarted, {});
  if (report.terminal) {
    io.open(*std::move(report.terminal));
  }
  io.start();
}

void Execs::on_ended(Cell::ExecReport& report) {
  const auto found = execs_.find(report.number);
  if (found != execs_.end()) {
    found->second.exit = std::move(report.exit);
    found->second.io.begin_drain();
  }
}

void Execs::add_polls(std::vector<pollfd>& polls) const {
  for (const auto& [number, exec] : execs_) {
    const ProcessIo::Polls own = exec.io.polls(false);
    polls.insert(polls.end(), own.begin(), own.end());
  }
}

void Execs::handle(const pollfd* polls) {
  for (auto& [number, exec] : execs_) {
    exec.io.handle(polls, false);
    polls += std::tuple_size_v<ProcessIo::Polls>;
  }
}

void Execs::settle() {
  for (auto at = execs_.begin(); at != execs_.end();) {
    Exec& exec = at->second;
    if (!exec.exit || !exec.io.drain(false)) {
      ++at;
      continue;
    }
    exec.exit->output_truncated = exec.io.truncated();
    exec.io.send(FrameType::kExit, wire::encode(*exec.exit));
    at = execs_.erase(at);
  }
}

std::optional<base::Deadline> Execs::deadline() const {
  std::optional<base::Deadline> next;
  for (const auto& [number, exec] : execs_) {
    const auto& ends = exec.io.drain_ends();
    if (ends && (!next || ends->remaining() < next->remaining())) {
      next = ends;
    }
  }
  return next;
}

}  // namespace cellrund::guest
