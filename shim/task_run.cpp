// Task, second half: START, the deadline, and the one way to the end.
#include <algorithm>
#include <chrono>
#include <csignal>

#include "base/log.hpp"
#include "shim/task.hpp"

namespace cellrund::shim {
namespace {

using base::BootTime;
using base::Errc;
using base::Error;
using base::Status;

// After a request to kill: so long may the guest take to report its workload's end by itself.
constexpr std::chrono::seconds kKillPatience(1);
constexpr int kMaxRestarts = 8;

std::string at(std::string_view rung, BootTime when) { return std::string(rung) + "@" + std::to_string(when.ns); }

}  // namespace

void Task::start(Answer started) {
  if (state_ != State::kCreated) {
    started(Error(Errc::kFailedPrecondition, "start " + request_.id + ": the task is not in the state created"));
    return;
  }
  started_ = std::move(started);
  state_ = State::kStarting;
  begin_if_ready();
}

// Asked for, the guest ready for good, and its secrets here if it has any.
void Task::begin_if_ready() {
  if (state_ == State::kStarting && committed_ && (plan_.annotations.secrets_socket.empty() || secrets_.has_value())) {
    begin();
  }
}

// Into the guest, before START, and out of this process.
Status Task::hand_over_secrets() {
  if (!secrets_.has_value()) {
    return base::ok();
  }
  const BootTime now = BootTime::now();
  for (const wire::NamedSecret& secret : *secrets_) {
    CR_CHECK(machine_->with_session([&secret](wire::HostSession& s) { return s.send_secret(secret); }));
    if (secret.ttl.count() > 0) {
      to_revoke_.emplace_back(secret.name, now + secret.ttl);
    }
  }
  secrets_.reset();
  if (!to_revoke_.empty()) {
    secret_timer_ = CR_TRY(Timer::create(env_.loop, [this] { on_secret_timer(); }));
    on_secret_timer();  // arms it
  }
  return base::ok();
}

void Task::on_secret_timer() {
  const BootTime now = BootTime::now();
  std::optional<BootTime> next;
  std::erase_if(to_revoke_, [&](const auto& secret) {
    if (secret.second > now) {
      next = next.has_value() ? std::min(*next, secret.second) : secret.second;
      return false;
    }
    if (state_ == State::kStopped) {
      return true;  // it went with its cell
    }
    if (machine_->with_session([&](wire::HostSession& s) { return s.revoke(secret.first); })) {
      revoked_.emplace_back(secret.first, now);
    } else if (!verdict_.has_value()) {
      stop_because(EndKind::kAgentUnreachable, 0, "secret " + secret.first + " could not be withdrawn: the guest does not listen");
    }
    return true;
  });
  if (next.has_value()) {
    (void)secret_timer_->arm(*next);  // cannot fail for a valid timer
  }
}

void Task::begin() {
  step_timer_->disarm();
  const BootTime now = BootTime::now();
  const auto arm = [&]() -> Status {
    if (plan_.annotations.active_deadline.has_value()) {
      deadline_ = now + *plan_.annotations.active_deadline;
      deadline_timer_ = CR_TRY(Timer::create(env_.loop, [this] { on_deadline(); }));
      final_timer_ = CR_TRY(Timer::create(env_.loop, [this] { on_deadline_and_grace(); }));
      CR_CHECK(deadline_timer_->arm(*deadline_));
      CR_CHECK(final_timer_->arm(*deadline_ + plan_.annotations.grace));
    }
    CR_CHECK(hand_over_secrets());
    CR_CHECK(machine_->with_session([](wire::HostSession& s) { return s.start(); }));
    return env_.broker.started(now, guest_release_);
  };
  // Timers first: no instruction of user code runs without its deadline armed. A cell whose facts cannot be written
  // down does not run on either.
  if (Status armed = arm(); !armed.ok()) {
    stop_because(EndKind::kAgentUnreachable, 0, "start: " + armed.error().message());
    return;
  }
  state_ = State::kRunning;
  if (plan_.workload.terminal.has_value()) {  // its client may have changed it since the workload was sent
    machine_->with_session([this](wire::HostSession& s) { s.resize(*plan_.workload.terminal); });
  }
  stdio_->start(0);
  std::exchange(started_, nullptr)(pid());
}

void Task::on_event(wire::Event& event) {
  if (state_ == State::kStopped || state_ == State::kPreparing) {
    return;
  }
  const std::uint32_t process = std::visit(
      [](const auto& one) -> std::uint32_t {
        if constexpr (requires { one.process; }) {
          return one.process;
        } else {
          return 0;
        }
      },
      event);
  if (process != 0) {
    on_exec_event(process, event);
  } else if (const auto* hello = std::get_if<wire::HelloEvent>(&event)) {
    guest_release_ = hello->kernel_release;
    Status sent = machine_->with_session([this](wire::HostSession& s) { return s.send_workload(plan_.workload); });
    if (!sent.ok()) {
      stop_because(EndKind::kAgentUnreachable, 0, "send the workload: " + sent.error().message());
    }
  } else if (std::holds_alternative<wire::ReadyEvent>(event)) {
    machine_->commit();
  } else if (auto* output = std::get_if<wire::OutputEvent>(&event)) {
    stdio_->push(output->stream, output->data);
  } else if (std::holds_alternative<wire::StdinRoomEvent>(event)) {
    stdio_->stdin_room();
  } else if (const auto* exit = std::get_if<wire::ExitEvent>(&event)) {
    on_exit_event(exit->exit);
  } else if (const auto* error = std::get_if<wire::ProtocolErrorEvent>(&event)) {
    stop_because(EndKind::kProtocolError, 0, error->what);
  }
}

// A guest that came up wrong (cell-init measures the emulated timers) resets itself; nothing of the job has run. START is not
// sent before commit() holds, so a workload cannot do this.
void Task::on_restarted() {
  if (!guest_release_.empty()) {
    // It has spoken, and a session is good for one conversation.
    stop_because(EndKind::kAgentUnreachable, 0, "the guest reset itself after its handshake");
  } else if (++restarts_ > kMaxRestarts) {
    stop_because(EndKind::kAgentUnreachable, 0,
                 "the guest restarted " + std::to_string(restarts_) + " times instead of coming up");
  } else {
    base::log::info("task=" + request_.id + " step=guest-restart n=" + std::to_string(restarts_));
  }
}

void Task::on_committed(Status committed) {
  if (!committed.ok()) {
    stop_because(EndKind::kAgentUnreachable, 0, committed.error().message());
    return;
  }
  committed_ = true;
  begin_if_ready();
}

void Task::on_exit_event(const wire::Exit& exit) {
  EndKind kind = EndKind::kExited;
  switch (exit.kind) {
    case wire::ExitKind::kExited: kind = EndKind::kExited; break;
    case wire::ExitKind::kSignaled: kind = EndKind::kSignaled; break;
    case wire::ExitKind::kExecFailed: kind = EndKind::kExecFailed; break;
    case wire::ExitKind::kSetupFailed: kind = EndKind::kAgentUnreachable; break;
  }
  const bool had_reason = verdict_.has_value();
  stop_because(kind, exit.value, exit.message);
  if (had_reason && (kind == EndKind::kExited || kind == EndKind::kSignaled)) {
    verdict_->kind = kind;  // we were about to end it, and the workload's own end came first
    verdict_->value = exit.value;
    verdict_->message = exit.message;
  }
  verdict_->guest_oom_killed = exit.oom_killed;
  verdict_->guest_pids_exhausted = exit.pids_exhausted;
  verdict_->guest_disk_full = exit.disk_full;
}

void Task::stop_because(EndKind kind, int value, std::string message) {
  if (state_ == State::kStopped) {
    return;
  }
  if (!verdict_.has_value()) {
    verdict_ = End{.kind = kind, .value = value, .message = std::move(message)};
  }
  state_ = State::kStopping;
  machine_->kill();
}

Status Task::signal(int signo) {
  if (state_ == State::kStopped || state_ == State::kPreparing) {
    return Error(Errc::kNotFound, "signal " + request_.id + ": process already finished");
  }
  if (signo < 1 || signo > 64) {
    return Error(Errc::kInvalidArgument, "signal " + request_.id + ": no such signal");
  }
  if (state_ == State::kCreated || state_ == State::kStarting) {
    // No user code runs that could handle it.
    stop_because(EndKind::kSignaled, signo, "signalled before it was started");
    return base::ok();
  }
  machine_->with_session([signo](wire::HostSession& s) { s.signal(signo); });
  if (signo == SIGKILL && state_ == State::kRunning) {
    state_ = State::kStopping;
    verdict_ = End{.kind = EndKind::kSignaled, .value = SIGKILL, .message = "killed on request"};
    if (paused_ || pausing_) {
      kill_vmm("VMM");  // the guest cannot hear it
      return base::ok();
    }
    ladder_.push_back(at("KILL", BootTime::now()));
    return step_timer_->arm_after(kKillPatience);
  }
  return base::ok();
}

void Task::pause(Answer paused) { set_paused(true, std::move(paused)); }

void Task::resume(Answer resumed) { set_paused(false, std::move(resumed)); }

void Task::set_paused(bool paused, Answer answer) {
  if (state_ != State::kRunning || pausing_ || paused_ == paused) {
    answer(Error(Errc::kFailedPrecondition, (paused ? "pause " : "resume ") + request_.id + ": the task is not " +
                                                (paused ? "running" : "paused")));
    return;
  }
  pausing_ = std::move(answer);
  if (paused) {
    machine_->pause();
  } else {
    machine_->resume();
  }
}

void Task::on_paused(bool paused) {
  paused_ = paused;
  base::log::info("task=" + request_.id + " step=" + (paused ? "paused" : "resumed"));
  if (pausing_) {
    std::exchange(pausing_, nullptr)(pid());
  }
}

base::Result<host::CgroupLoad> Task::load() const {
  if (!group_.has_value()) {
    return Error(Errc::kFailedPrecondition, "metrics of " + request_.id + ": the task has no cgroup");
  }
  return group_->cgroup.load();
}

void Task::close_stdin() {
  if (stdio_ && state_ != State::kStopped) {
    stdio_->close_stdin();
  }
}

void Task::on_deadline() {
  if (state_ != State::kRunning) {
    return;  // it ends already, for another reason
  }
  deadline_fired_ = BootTime::now();
  const std::string_view rung = plan_.annotations.stop_signal == SIGTERM ? "TERM" : "STOP";
  ladder_.push_back(at(rung, *deadline_fired_));
  machine_->with_session([this](wire::HostSession& s) { s.signal(plan_.annotations.stop_signal); });
}

void Task::on_deadline_and_grace() {
  if (state_ == State::kStopped) {
    return;
  }
  if (!verdict_.has_value()) {
    verdict_ = End{.kind = EndKind::kVmmDied, .value = SIGKILL, .message = "killed at deadline plus grace"};
  }
  kill_vmm("VMM");
}

void Task::kill_vmm(std::string_view rung) {
  ladder_.push_back(at(rung, BootTime::now()));
  state_ = State::kStopping;
  machine_->kill();
}

void Task::on_died(base::ExitStatus exit) {
  if (state_ == State::kPreparing) {
    const std::string words = base::log::quoted(machine_->last_words(), 1024);
    fail_create(Error(Errc::kUnavailable, "QEMU ended before it was ready: " + words));
    return;
  }
  End end = verdict_.value_or(End{.kind = EndKind::kVmmDied,
                                  .value = exit.signaled ? exit.value : 0,
                                  .message = std::string("the VMM ended by ") + (exit.signaled ? "signal " : "itself, status ") +
                                             std::to_string(exit.value) + "; it wrote " +
                                             base::log::quoted(machine_->last_words(), 512)});
  finish(std::move(end));
}

void Task::finish(End end) {
  secrets_.reset();
  secret_channel_.reset();
  for (const auto& timer : {&step_timer_, &deadline_timer_, &final_timer_, &secret_timer_}) {
    if (*timer) {
      (*timer)->disarm();
    }
  }
  end.deadline_fired = deadline_fired_;
  end.ladder = ladder_;
  end.revoked = revoked_;
  end.ended = BootTime::now();
  state_ = State::kStopped;
  if (const Status written = env_.broker.ended(encode(end)); !written.ok()) {
    base::log::error("write the end of " + request_.id + ": " + written.error().message());
  }
  base::log::info("task=" + request_.id + " step=ended kind=" + std::string(to_string(end.kind)) +
                  " value=" + std::to_string(end.value) + " message=" + base::log::quoted(end.message));
  end_execs();
  stdio_->finish();
  ended_ = TaskEnd{exit_status(end), base::WallTime::now()};
  if (started_) {
    std::exchange(started_, nullptr)(
        Error(Errc::kUnavailable, "start " + request_.id + ": " + std::string(to_string(end.kind)) + ": " + end.message));
  }
  if (pausing_) {
    std::exchange(pausing_, nullptr)(Error(Errc::kNotFound, "pause or resume " + request_.id + ": process already finished"));
  }
  on_end_(*ended_);
}

}  // namespace cellrund::shim
