#include "shim/task_service.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <limits>
#include <utility>

#include "base/log.hpp"
#include "containerd_shim.pb.h"
#include "shim/metrics.hpp"
#include "shim/runtime_options.hpp"
#include "shim/task_request.hpp"

namespace cellrund::shim {
namespace {

using base::Errc;
using base::Error;
using base::Result;

constexpr std::string_view kService = "containerd.task.v2.Task";

shimapi::Status wire_status(const Task& task) noexcept {
  switch (task.state()) {
    case Task::State::kPreparing: return shimapi::STATUS_UNKNOWN;
    case Task::State::kCreated:
    case Task::State::kStarting: return shimapi::STATUS_CREATED;
    case Task::State::kRunning: return task.paused() ? shimapi::STATUS_PAUSED : shimapi::STATUS_RUNNING;
    case Task::State::kStopping: return shimapi::STATUS_RUNNING;
    case Task::State::kStopped: return shimapi::STATUS_STOPPED;
  }
  return shimapi::STATUS_UNKNOWN;
}

}  // namespace

void TaskService::handle(ttrpc::Call call, ttrpc::Reply reply) {
  using Method = void (TaskService::*)(const std::string&, ttrpc::Reply);
  static constexpr std::array<std::pair<std::string_view, Method>, 15> kMethods{{{"Create", &TaskService::create},
                                                                                {"Start", &TaskService::start},
                                                                {"Exec", &TaskService::exec},
                                                                {"ResizePty", &TaskService::resize_pty},
                                                                                {"Delete", &TaskService::remove},
                                                                                {"State", &TaskService::state},
                                                                                {"Wait", &TaskService::wait},
                                                                                {"Kill", &TaskService::kill},
                                                                                {"Pids", &TaskService::pids},
                                                                {"Pause", &TaskService::pause},
                                                                {"Resume", &TaskService::resume},
                                                                {"Stats", &TaskService::stats},
                                                                                {"Connect", &TaskService::connect},
                                                                                {"CloseIO", &TaskService::close_io},
                                                                                {"Shutdown", &TaskService::shut_down}}};
  const auto found =
      std::find_if(kMethods.begin(), kMethods.end(), [&](const auto& entry) { return entry.first == call.method; });
  if (call.service != kService || found == kMethods.end()) {
    std::move(reply).fail(Error(Errc::kUnimplemented, "io.containerd.cellrun.v2 does not implement " +
                                                          base::log::quoted(call.service + "/" + call.method)));
    return;
  }
  (this->*found->second)(call.payload, std::move(reply));
}

void TaskService::create(const std::string& payload, ttrpc::Reply reply) {
  shimapi::CreateTaskRequest request;
  if (!request.ParseFromString(payload)) {
    return std::move(reply).fail(malformed_request());
  }
  if (task_) {
    return std::move(reply).fail(Error(Errc::kAlreadyExists, "this shim has a task already"));
  }
  if (request.id() != line_.id) {
    return std::move(reply).fail(Error(Errc::kInvalidArgument, "create: this shim serves another task"));
  }
  if (!request.checkpoint().empty() || !request.parent_checkpoint().empty()) {
    return std::move(reply).fail(Error(Errc::kUnimplemented, "create: a cell cannot be restored from a checkpoint"));
  }
  Task::Env env = env_;
  Result<std::string> config_path = config_path_from_options(request.options().type_url(), request.options().value());
  if (!config_path.ok()) {
    return std::move(reply).fail(config_path.error());
  }
  if (!config_path->empty()) {
    env.config_path = *config_path;
  }
  Result<Config> config = load_config(env.config_path);
  if (!config.ok()) {
    return std::move(reply).fail(config.error());
  }
  TaskRequest task{.id = request.id(),
                   .bundle = request.bundle(),
                   .rootfs = {},
                   .stdio = {request.stdin(), request.stdout(), request.stderr(), request.terminal()},
                   .creation = {}};
  for (const shimapi::Mount& mount : request.rootfs()) {
    task.rootfs.push_back({mount.type(), mount.source(), {mount.options().begin(), mount.options().end()}});
  }
  const auto shared = std::make_shared<ttrpc::Reply>(std::move(reply));  // std::function wants to copy what it holds
  shimapi::TaskCreate event;
  event.set_bundle(task.bundle);
  *event.mutable_rootfs() = request.rootfs();
  event.mutable_io()->set_stdin(task.stdio.in);
  event.mutable_io()->set_stdout(task.stdio.out);
  event.mutable_io()->set_stderr(task.stdio.err);
  event.mutable_io()->set_terminal(task.stdio.terminal);
  task.creation = event.SerializeAsString();
  task_ = Task::create(
      std::move(env), std::move(*config), std::move(task),
      [this, shared](Result<pid_t> pid) {
        if (pid.ok()) {
          env_.broker.publish({Topic::kCreate});
        }
        on_created(std::move(pid), shared);
      },
      [this](const TaskEnd& end) { on_end(end); },
      [this](const std::string& exec_id, const TaskEnd& end) { publish_exit(exec_id, end); });
}

void TaskService::on_created(Result<pid_t> pid, const std::shared_ptr<ttrpc::Reply>& reply) {
  if (!pid.ok()) {
    base::log::error(pid.error().message());
    std::move(*reply).fail(pid.error());
    env_.loop.post([this] { task_.reset(); });  // the task itself is calling
    if (terminating_) {
      shutdown_();
    }
    return;
  }
  created_ = true;
  pid_ = *pid;
  shimapi::CreateTaskResponse response;
  response.set_pid(static_cast<std::uint32_t>(*pid));
  std::move(*reply).send(response.SerializeAsString());
  if (terminating_) {
    terminate();
  }
}

void TaskService::start(const std::string& payload, ttrpc::Reply reply) {
  shimapi::ProcessRequest request;
  Task* const task = task_of(payload, request, reply);
  if (task == nullptr) {
    return;
  }
  if (!request.exec_id().empty()) {
    return start_exec(*task, request.exec_id(), std::move(reply));
  }
  const auto shared = std::make_shared<ttrpc::Reply>(std::move(reply));
  task->start([this, shared](const Result<pid_t>& pid) {
    if (!pid.ok()) {
      std::move(*shared).fail(pid.error());
      return;
    }
    env_.broker.publish({Topic::kStart});
    shimapi::StartResponse response;
    response.set_pid(static_cast<std::uint32_t>(*pid));
    std::move(*shared).send(response.SerializeAsString());
  });
}

void TaskService::on_end(const TaskEnd& end) {
  publish_exit({}, end);
  if (terminating_) {
    shutdown_();
  }
}

void TaskService::remove(const std::string& payload, ttrpc::Reply reply) {
  shimapi::ProcessRequest request;
  Task* const task = task_of(payload, request, reply);
  if (task == nullptr) {
    return;
  }
  if (!request.exec_id().empty()) {
    return remove_exec(*task, request.exec_id(), std::move(reply));
  }
  if (!task->end().has_value()) {
    return std::move(reply).fail(Error(Errc::kFailedPrecondition, "delete " + line_.id + ": the task is not stopped"));
  }
  const TaskEnd end = *task->end();
  task->release();
  task_.reset();
  created_ = false;
  env_.broker.publish({.topic = Topic::kDelete, .exec_id = {}, .end = end});
  shimapi::DeleteResponse response;
  response.set_pid(static_cast<std::uint32_t>(pid_));
  response.set_exit_status(end.status);
  set_time(response.mutable_exited_at(), end.at);
  std::move(reply).send(response.SerializeAsString());
}

void TaskService::state(const std::string& payload, ttrpc::Reply reply) {
  shimapi::ProcessRequest request;
  Task* const task = task_of(payload, request, reply);
  if (task == nullptr) {
    return;
  }
  if (!request.exec_id().empty()) {
    return exec_state(*task, request.exec_id(), std::move(reply));
  }
  shimapi::StateResponse response;
  response.set_id(task->request().id);
  response.set_bundle(task->request().bundle);
  response.set_pid(static_cast<std::uint32_t>(pid_));
  response.set_status(wire_status(*task));
  response.set_stdin(task->request().stdio.in);
  response.set_stdout(task->request().stdio.out);
  response.set_stderr(task->request().stdio.err);
  response.set_terminal(task->request().stdio.terminal);
  if (task->end().has_value()) {
    response.set_exit_status(task->end()->status);
    set_time(response.mutable_exited_at(), task->end()->at);
  }
  std::move(reply).send(response.SerializeAsString());
}

void TaskService::wait(const std::string& payload, ttrpc::Reply reply) {
  shimapi::ProcessRequest request;
  Task* const task = task_of(payload, request, reply);
  if (task == nullptr) {
    return;
  }
  wait_for(request.exec_id().empty() ? task->end() : task->exec(request.exec_id())->end, request.exec_id(), std::move(reply));
}

void TaskService::kill(const std::string& payload, ttrpc::Reply reply) {
  shimapi::KillRequest request;
  Task* const task = task_of(payload, request, reply);
  if (task == nullptr) {
    return;
  }
  const int signo = static_cast<int>(request.signal());
  const base::Status sent = request.exec_id().empty() ? task->signal(signo) : task->signal_exec(request.exec_id(), signo);
  if (!sent.ok()) {
    return std::move(reply).fail(sent.error());
  }
  std::move(reply).send({});
}

void TaskService::pids(const std::string& payload, ttrpc::Reply reply) {
  shimapi::PidsRequest request;
  Task* const task = task_of(payload, request, reply);
  if (task == nullptr) {
    return;
  }
  shimapi::PidsResponse response;
  if (!task->end().has_value()) {
    response.add_processes()->set_pid(static_cast<std::uint32_t>(pid_));
  }
  std::move(reply).send(response.SerializeAsString());
}

Task::Answer TaskService::tell_paused(Topic topic, ttrpc::Reply reply) {
  const auto shared = std::make_shared<ttrpc::Reply>(std::move(reply));
  return [this, shared, topic](const Result<pid_t>& done) {
    if (!done.ok()) {
      std::move(*shared).fail(done.error());
      return;
    }
    env_.broker.publish({topic});
    std::move(*shared).send({});
  };
}

void TaskService::pause(const std::string& payload, ttrpc::Reply reply) {
  shimapi::PauseRequest request;
  if (Task* const task = task_of(payload, request, reply)) {
    task->pause(tell_paused(Topic::kPaused, std::move(reply)));
  }
}

void TaskService::resume(const std::string& payload, ttrpc::Reply reply) {
  shimapi::PauseRequest request;
  if (Task* const task = task_of(payload, request, reply)) {
    task->resume(tell_paused(Topic::kResumed, std::move(reply)));
  }
}

void TaskService::stats(const std::string& payload, ttrpc::Reply reply) {
  shimapi::StatsRequest request;
  Task* const task = task_of(payload, request, reply);
  if (task == nullptr) {
    return;
  }
  const Result<host::CgroupLoad> load = task->load();
  if (!load.ok()) {
    return std::move(reply).fail(load.error());
  }
  shimapi::StatsResponse response;
  response.mutable_stats()->set_type_url(std::string(kMetricsType));
  response.mutable_stats()->set_value(encode_metrics(*load));
  std::move(reply).send(response.SerializeAsString());
}

void TaskService::connect(const std::string& payload, ttrpc::Reply reply) {
  shimapi::ConnectRequest request;
  if (!request.ParseFromString(payload)) {
    return std::move(reply).fail(malformed_request());
  }
  shimapi::ConnectResponse response;
  response.set_shim_pid(static_cast<std::uint32_t>(::getpid()));
  response.set_task_pid(static_cast<std::uint32_t>(pid_));
  response.set_version(CELLRUN_VERSION);
  std::move(reply).send(response.SerializeAsString());
}

void TaskService::close_io(const std::string& payload, ttrpc::Reply reply) {
  shimapi::CloseIORequest request;
  Task* const task = task_of(payload, request, reply);
  if (task == nullptr) {
    return;
  }
  if (request.stdin() && request.exec_id().empty()) {
    task->close_stdin();
  } else if (request.stdin()) {
    task->close_exec_stdin(request.exec_id());
  }
  std::move(reply).send({});
}

void TaskService::resize_pty(const std::string& payload, ttrpc::Reply reply) {
  shimapi::ResizePtyRequest request;
  Task* const task = task_of(payload, request, reply);
  if (task == nullptr) {
    return;
  }
  constexpr std::uint32_t kMost = std::numeric_limits<std::uint16_t>::max();
  const wire::WindowSize size{static_cast<std::uint16_t>(std::min(request.height(), kMost)),
                              static_cast<std::uint16_t>(std::min(request.width(), kMost))};
  const base::Status resized = task->resize(request.exec_id(), size);
  if (!resized.ok()) {
    return std::move(reply).fail(resized.error());
  }
  std::move(reply).send({});
}

void TaskService::shut_down(const std::string& payload, ttrpc::Reply reply) {
  shimapi::ShutdownRequest request;
  if (!request.ParseFromString(payload)) {
    return std::move(reply).fail(malformed_request());
  }
  std::move(reply).send({});
  if (!task_) {
    shutdown_();
  } else if (request.now()) {
    terminate();
  }
}

void TaskService::terminate() {
  terminating_ = true;
  if (!task_ || (created_ && task_->end().has_value())) {
    shutdown_();
    return;
  }
  if (created_) {
    (void)task_->signal(SIGKILL);  // fails only for a task that has ended: its end calls shutdown_
  }
}

}  // namespace cellrund::shim
