// TaskService, second half: execs, and the ends of everything.
#include <utility>

#include "shim/task_request.hpp"

namespace cellrund::shim {
namespace {

using base::Errc;
using base::Error;
using base::Result;

constexpr std::size_t kMaxWaiters = 1024;

std::string wait_response(const TaskEnd& end) {
  shimapi::WaitResponse response;
  response.set_exit_status(end.status);
  set_time(response.mutable_exited_at(), end.at);
  return response.SerializeAsString();
}

shimapi::Status wire_status(Exec::State state) noexcept {
  switch (state) {
    case Exec::State::kCreated:
    case Exec::State::kStarting: return shimapi::STATUS_CREATED;
    case Exec::State::kRunning: return shimapi::STATUS_RUNNING;
    case Exec::State::kStopped: return shimapi::STATUS_STOPPED;
  }
  return shimapi::STATUS_UNKNOWN;
}

}  // namespace

void TaskService::exec(const std::string& payload, ttrpc::Reply reply) {
  shimapi::ExecProcessRequest request;
  Task* const task = task_of(payload, request, reply);
  if (task == nullptr) {
    return;
  }
  const base::Status added =
      task->add_exec(request.exec_id(), {request.stdin(), request.stdout(), request.stderr(), request.terminal()},
                     request.spec().value());
  if (!added.ok()) {
    return std::move(reply).fail(added.error());
  }
  env_.broker.publish({.topic = Topic::kExecAdded, .exec_id = request.exec_id(), .end = {}});
  std::move(reply).send({});
}

void TaskService::start_exec(Task& task, const std::string& exec_id, ttrpc::Reply reply) {
  const auto shared = std::make_shared<ttrpc::Reply>(std::move(reply));
  task.start_exec(exec_id, [this, shared, exec_id](const Result<pid_t>& pid) {
    if (!pid.ok()) {
      std::move(*shared).fail(pid.error());
      return;
    }
    env_.broker.publish({.topic = Topic::kExecStarted, .exec_id = exec_id, .end = {}});
    shimapi::StartResponse response;
    response.set_pid(static_cast<std::uint32_t>(*pid));
    std::move(*shared).send(response.SerializeAsString());
  });
}

void TaskService::remove_exec(Task& task, const std::string& exec_id, ttrpc::Reply reply) {
  const Result<TaskEnd> end = task.delete_exec(exec_id);
  if (!end.ok()) {
    return std::move(reply).fail(end.error());
  }
  answer_waiters(exec_id, *end);  // of one that was never started
  shimapi::DeleteResponse response;
  response.set_pid(static_cast<std::uint32_t>(pid_));
  response.set_exit_status(end->status);
  set_time(response.mutable_exited_at(), end->at);
  std::move(reply).send(response.SerializeAsString());
}

void TaskService::exec_state(const Task& task, const std::string& exec_id, ttrpc::Reply reply) {
  const Exec& exec = *task.exec(exec_id);
  shimapi::StateResponse response;
  response.set_id(exec_id);
  response.set_exec_id(exec_id);
  response.set_bundle(task.request().bundle);
  response.set_pid(static_cast<std::uint32_t>(pid_));  // its own is the guest's, and nothing on this host
  response.set_status(wire_status(exec.state));
  response.set_stdin(exec.paths.in);
  response.set_stdout(exec.paths.out);
  response.set_stderr(exec.paths.err);
  response.set_terminal(exec.paths.terminal);
  if (exec.end.has_value()) {
    response.set_exit_status(exec.end->status);
    set_time(response.mutable_exited_at(), exec.end->at);
  }
  std::move(reply).send(response.SerializeAsString());
}

void TaskService::publish_exit(const std::string& exec_id, const TaskEnd& end) {
  env_.broker.publish({.topic = Topic::kExit, .exec_id = exec_id, .end = end});
  answer_waiters(exec_id, end);
}

void TaskService::answer_waiters(const std::string& exec_id, const TaskEnd& end) {
  for (auto& [id, waiter] : std::exchange(waiters_, {})) {
    if (id == exec_id) {
      std::move(waiter).send(wait_response(end));
    } else {
      waiters_.emplace_back(id, std::move(waiter));
    }
  }
}

void TaskService::wait_for(const std::optional<TaskEnd>& end, const std::string& exec_id, ttrpc::Reply reply) {
  if (end.has_value()) {
    return std::move(reply).send(wait_response(*end));
  }
  if (waiters_.size() >= kMaxWaiters) {
    return std::move(reply).fail(Error(Errc::kResourceExhausted, "too many waiters"));
  }
  waiters_.emplace_back(exec_id, std::move(reply));
}

}  // namespace cellrund::shim
