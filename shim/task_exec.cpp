// Task, third part: the processes that join the workload. Whatever they do, they end with it.
#include <csignal>

#include "base/log.hpp"
#include "shim/task.hpp"

namespace cellrund::shim {
namespace {

using base::Errc;
using base::Error;
using base::Result;
using base::Status;

// Known at one time, the ended but not deleted ones included.
constexpr std::size_t kMaxKnown = 64;
constexpr std::uint32_t kSignalBase = 128;
constexpr std::uint32_t kCannotInvoke = 126;

std::uint32_t exit_status(const wire::Exit& exit) noexcept {
  switch (exit.kind) {
    case wire::ExitKind::kExited:
    case wire::ExitKind::kExecFailed: return static_cast<std::uint32_t>(exit.value);
    case wire::ExitKind::kSignaled: return kSignalBase + static_cast<std::uint32_t>(exit.value);
    case wire::ExitKind::kSetupFailed: return kCannotInvoke;
  }
  return kCannotInvoke;
}

}  // namespace

Status Task::add_exec(const std::string& id, StdioPaths stdio, std::string_view process_json) {
  if (state_ != State::kRunning) {
    return Error(Errc::kFailedPrecondition, "exec in " + request_.id + ": the task is not running");
  }
  if (id.empty() || id.size() > kMaxExecId) {
    return Error(Errc::kInvalidArgument, "exec in " + request_.id + ": bad exec id");
  }
  if (execs_.contains(id)) {
    return Error(Errc::kAlreadyExists, "exec " + base::log::quoted(id) + " exists already");
  }
  if (execs_.size() >= kMaxKnown) {
    return Error(Errc::kResourceExhausted, "exec in " + request_.id + ": too many execs are not deleted yet");
  }
  Exec exec;
  exec.process = CR_TRY(parse_process(process_json, plan_.workload));
  if (exec.process.terminal.has_value() != stdio.terminal) {
    return Error(Errc::kInvalidArgument, "exec " + base::log::quoted(id) + ": terminal in the request, or in its process, alone");
  }
  exec.stdio = CR_TRY(ProcessStdio::open(env_.loop, stdio, machine_, [this](const std::string& path, int flags) {
    return env_.broker.open_fifo(path, flags);
  }));
  exec.paths = std::move(stdio);
  execs_.emplace(id, std::move(exec));
  return base::ok();
}

const Exec* Task::exec(const std::string& id) const {
  const auto found = execs_.find(id);
  return found == execs_.end() ? nullptr : &found->second;
}

Exec* Task::exec_numbered(std::uint32_t number) {
  for (auto& [id, exec] : execs_) {
    if (exec.number == number) {
      return &exec;
    }
  }
  return nullptr;
}

void Task::start_exec(const std::string& id, Answer started) {
  Exec& exec = execs_.at(id);
  if (exec.state != Exec::State::kCreated || state_ != State::kRunning || paused_ || pausing_) {
    started(Error(Errc::kFailedPrecondition, "start exec " + base::log::quoted(id) + ": it was started, or its task does not run"));
    return;
  }
  const Result<std::uint32_t> number = machine_->with_session([&](wire::HostSession& s) { return s.exec(exec.process); });
  if (!number.ok()) {
    started(number.error().clone());
    return;
  }
  base::log::info("task=" + request_.id + " step=exec id=" + base::log::quoted(id));
  exec.state = Exec::State::kStarting;
  exec.number = *number;
  exec.started = std::move(started);
  exec.stdio->start(*number);
}

Status Task::signal_exec(const std::string& id, int signo) {
  const Exec& exec = execs_.at(id);
  if (exec.state == Exec::State::kStopped) {
    return Error(Errc::kNotFound, "signal exec " + base::log::quoted(id) + ": process already finished");
  }
  if (signo < 1 || signo > 64 || exec.state == Exec::State::kCreated) {
    return Error(Errc::kInvalidArgument, "signal exec " + base::log::quoted(id) + ": no such signal, or not started");
  }
  machine_->with_session([&](wire::HostSession& s) { s.signal(signo, exec.number); });
  return base::ok();
}

void Task::close_exec_stdin(const std::string& id) { execs_.at(id).stdio->close_stdin(); }

Status Task::resize(const std::string& exec_id, wire::WindowSize size) {
  const Exec* const one = exec_id.empty() ? nullptr : &execs_.at(exec_id);
  std::optional<wire::WindowSize>& terminal = one == nullptr ? plan_.workload.terminal : execs_.at(exec_id).process.terminal;
  if (!terminal.has_value()) {
    return Error(Errc::kFailedPrecondition, "resize: the process has no terminal");
  }
  terminal = size;  // of one that has not started
  if (one == nullptr || one->number != 0) {
    machine_->with_session([&](wire::HostSession& s) { s.resize(size, one == nullptr ? 0 : one->number); });
  }
  return base::ok();
}

Result<TaskEnd> Task::delete_exec(const std::string& id) {
  Exec& exec = execs_.at(id);
  if (exec.state == Exec::State::kStarting || exec.state == Exec::State::kRunning) {
    return Error(Errc::kFailedPrecondition, "delete exec " + base::log::quoted(id) + ": it is not stopped");
  }
  const TaskEnd end = exec.end.value_or(TaskEnd{0, base::WallTime::now()});
  // A client deletes first and reads on then.
  std::erase_if(leaving_, [](const auto& stdio) { return stdio->flushed(); });
  if (!exec.stdio->flushed() && leaving_.size() < kMaxKnown) {
    exec.stdio->finish();
    leaving_.push_back(std::move(exec.stdio));
  }
  execs_.erase(id);
  return end;
}

void Task::on_exec_event(std::uint32_t number, wire::Event& event) {
  // The session makes no event of a number that it has not given out; a deleted one has ended.
  Exec* const exec = exec_numbered(number);
  if (exec == nullptr) {
    return;
  }
  if (std::holds_alternative<wire::StartedEvent>(event)) {
    exec->state = Exec::State::kRunning;
    std::exchange(exec->started, nullptr)(pid());
  } else if (const auto* output = std::get_if<wire::OutputEvent>(&event)) {
    exec->stdio->push(output->stream, output->data);
  } else if (std::holds_alternative<wire::StdinRoomEvent>(event)) {
    exec->stdio->stdin_room();
  } else if (const auto* exit = std::get_if<wire::ExitEvent>(&event)) {
    if (!exit->exit.message.empty()) {
      exec->stdio->say("cellrun: " + exit->exit.message);
    }
    end_exec(*exec, exit_status(exit->exit));
  }
}

// A program that is missing counts as one that started and ended at once: containerd's clients report the status then.
void Task::end_exec(Exec& exec, std::uint32_t status) {
  exec.state = Exec::State::kStopped;
  exec.number = 0;
  exec.end = TaskEnd{status, base::WallTime::now()};
  exec.stdio->finish();
  if (exec.started) {
    std::exchange(exec.started, nullptr)(pid());
  }
  for (const auto& [id, known] : execs_) {
    if (&known == &exec) {
      on_exec_end_(id, *exec.end);
      return;
    }
  }
}

// The workload is dead, and every process of its namespace with it.
void Task::end_execs() {
  for (auto& [id, exec] : execs_) {
    if (exec.state == Exec::State::kStarting || exec.state == Exec::State::kRunning) {
      end_exec(exec, kSignalBase + SIGKILL);
    }
  }
}

}  // namespace cellrund::shim
