#include <poll.h>

#include <array>
#include <cerrno>
#include <stop_token>

#include "base/file.hpp"
#include "containerd/client.hpp"
#include "containerd/impl.hpp"

namespace cellrund::containerd {
namespace {

using CreateCall = Pending<wire::tasks::CreateTaskRequest, wire::tasks::CreateTaskResponse>;
using DeleteCall = Pending<wire::tasks::DeleteTaskRequest, wire::tasks::DeleteResponse>;

// containerd.v1.types.Status; anything newer than this schema is kUnknown.
TaskStatus to_task_status(::containerd::v1::types::Status status) {
  switch (static_cast<int>(status)) {
    case ::containerd::v1::types::CREATED:
      return TaskStatus::kCreated;
    case ::containerd::v1::types::RUNNING:
      return TaskStatus::kRunning;
    case ::containerd::v1::types::STOPPED:
      return TaskStatus::kStopped;
    case ::containerd::v1::types::PAUSED:
      return TaskStatus::kPaused;
    case ::containerd::v1::types::PAUSING:
      return TaskStatus::kPausing;
    default:
      return TaskStatus::kUnknown;
  }
}

// Tasks.List names a task by `id` and leaves container_id empty; Tasks.Get fills both (runtime/v2 and services/tasks).
Task from_wire(const ::containerd::v1::types::Process& process) {
  return Task{process.container_id().empty() ? process.id() : process.container_id(), process.pid(),
              to_task_status(process.status()), process.exit_status()};
}

}  // namespace

class TaskWait::State : public Pending<wire::tasks::WaitRequest, wire::tasks::WaitResponse> {
 public:
  using Pending::Pending;
};

TaskWait::TaskWait(std::shared_ptr<State> state) : state_(std::move(state)) {}
TaskWait::TaskWait(TaskWait&&) noexcept = default;
TaskWait& TaskWait::operator=(TaskWait&& other) noexcept {
  std::swap(state_, other.state_);  // the other one's destructor cancels ours
  return *this;
}
TaskWait::~TaskWait() {
  if (state_ != nullptr) {
    state_->context.cancel();
  }
}

int TaskWait::fd() const noexcept {
  return state_->fd();
}

base::Result<TaskExit> TaskWait::wait(base::Deadline deadline) const {
  const std::string what = "Tasks.Wait " + state_->request.container_id();
  if (!CR_TRY(base::wait_readable(state_->fd(), deadline))) {
    return base::Error(base::Errc::kDeadlineExceeded, "containerd: " + what + ": the task has not ended");
  }
  CR_CHECK(state_->outcome(what));
  return TaskExit{state_->response.exit_status(), to_wall_time(state_->response.exited_at())};
}

base::Result<std::uint32_t> Client::create_task(const std::string& id, const std::vector<Mount>& rootfs,
                                                const TaskIo& io, const Call& call) {
  const std::string what = "Tasks.Create " + id;
  if (call.deadline.expired() || call.stop.stop_requested()) {
    const bool stopped = call.stop.stop_requested();
    return base::Error(stopped ? base::Errc::kCancelled : base::Errc::kDeadlineExceeded,
                       "containerd: " + what + (stopped ? ": stopped" : ": no time left"));
  }
  auto state = std::make_shared<CreateCall>(impl_->connection, call, CR_TRY(make_event()));
  wire::tasks::CreateTaskRequest& request = state->request;
  request.set_container_id(id);
  for (const Mount& mount : rootfs) {
    auto& out = *request.add_rootfs();
    out.set_type(mount.type);
    out.set_source(mount.source);
    out.mutable_options()->Add(mount.options.begin(), mount.options.end());
  }
  request.set_stdin(io.stdin_path);
  request.set_stdout(io.stdout_path);
  request.set_stderr(io.stderr_path);
  const base::UniqueFd stopped = CR_TRY(make_event());
  state->start(*impl_->tasks, &wire::tasks::Tasks::Stub::AsyncCreate, impl_->completions);
  {
    const std::stop_callback on_stop(call.stop, [&stopped] { signal_event(stopped.get()); });
    std::array<pollfd, 2> polls{{{state->fd(), POLLIN, 0}, {stopped.get(), POLLIN, 0}}};
    while (::poll(polls.data(), polls.size(), -1) < 0 && errno == EINTR) {  // the call's own deadline ends it
    }
  }
  if (!CR_TRY(base::wait_readable(state->fd(), base::Deadline::after(kTaskCreateSettle)))) {
    state->context.cancel();
    return base::Error(base::Errc::kCancelled, "containerd: " + what + ": stopped");
  }
  CR_CHECK(state->outcome(what));
  return state->response.pid();
}

base::Result<std::uint32_t> Client::start_task(const std::string& id, const Call& call) {
  wire::tasks::StartRequest request;
  request.set_container_id(id);
  wire::tasks::StartResponse response;
  CR_CHECK(impl_->unary(*impl_->tasks, &wire::tasks::Tasks::Stub::Start, request, response, call, "Tasks.Start " + id));
  return response.pid();
}

base::Status Client::kill_task(const std::string& id, int signo, const Call& call) {
  wire::tasks::KillRequest request;
  request.set_container_id(id);
  request.set_signal(static_cast<std::uint32_t>(signo));
  google::protobuf::Empty response;
  return impl_->unary(*impl_->tasks, &wire::tasks::Tasks::Stub::Kill, request, response, call, "Tasks.Kill " + id);
}

base::Result<TaskWait> Client::begin_wait(const std::string& id) {
  auto state = std::make_shared<TaskWait::State>(impl_->connection, CR_TRY(make_event()));
  state->request.set_container_id(id);
  state->start(*impl_->tasks, &wire::tasks::Tasks::Stub::AsyncWait, impl_->completions);
  return TaskWait(std::move(state));
}

base::Result<TaskExit> Client::wait_task(const std::string& id, const Call& call) {
  const TaskWait wait = CR_TRY(begin_wait(id));
  return wait.wait(call.deadline);
}

base::Status Client::delete_task(const std::string& id, const Call& call) {
  const std::string what = "Tasks.Delete " + id;
  const Call background(base::Deadline::after(kTaskDeleteBudget), call.lease);
  auto state = std::make_shared<DeleteCall>(impl_->connection, background, CR_TRY(make_event()));
  state->request.set_container_id(id);
  state->start(*impl_->tasks, &wire::tasks::Tasks::Stub::AsyncDelete, impl_->completions);
  if (!CR_TRY(base::wait_readable(state->fd(), call.deadline))) {
    return base::Error(base::Errc::kDeadlineExceeded, "containerd: " + what + ": still going on");
  }
  auto deleted = state->outcome(what);
  if (!deleted.ok() && deleted.error().code() == base::Errc::kNotFound) {
    return base::ok();
  }
  return deleted;
}

base::Result<Task> Client::get_task(const std::string& id, const Call& call) {
  wire::tasks::GetRequest request;
  request.set_container_id(id);
  wire::tasks::GetResponse response;
  CR_CHECK(impl_->unary(*impl_->tasks, &wire::tasks::Tasks::Stub::Get, request, response, call, "Tasks.Get " + id));
  return from_wire(response.process());
}

base::Result<std::vector<Task>> Client::list_tasks(const Call& call) {
  wire::tasks::ListTasksResponse response;
  CR_CHECK(impl_->unary(*impl_->tasks, &wire::tasks::Tasks::Stub::List, wire::tasks::ListTasksRequest(), response, call,
                        "Tasks.List"));
  std::vector<Task> out;
  for (const auto& process : response.tasks()) {
    out.push_back(from_wire(process));
  }
  return out;
}

base::Result<std::vector<std::uint32_t>> Client::task_pids(const std::string& id, const Call& call) {
  wire::tasks::ListPidsRequest request;
  request.set_container_id(id);
  wire::tasks::ListPidsResponse response;
  CR_CHECK(impl_->unary(*impl_->tasks, &wire::tasks::Tasks::Stub::ListPids, request, response, call,
                        "Tasks.ListPids " + id));
  std::vector<std::uint32_t> out;
  for (const auto& process : response.processes()) {
    out.push_back(process.pid());
  }
  return out;
}

}  // namespace cellrund::containerd
