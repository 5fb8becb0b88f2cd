// containerd.task.v2.Task on one task and its execs: decodes calls, keeps the waiters, and publishes the events in their
// order.
// Lives on the loop's thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "shim/command_line.hpp"
#include "shim/task.hpp"
#include "shim/ttrpc/server.hpp"

namespace cellrund::shim {

class TaskService {
 public:
  // `shutdown` is called when containerd has asked the shim to end and no task is left.
  TaskService(CommandLine line, Task::Env env, std::function<void()> shutdown)
      : line_(std::move(line)), env_(std::move(env)), shutdown_(std::move(shutdown)) {}

  void handle(ttrpc::Call call, ttrpc::Reply reply);
  // The shim itself is told to end: the cell goes with it. Idempotent.
  void terminate();

 private:
  void create(const std::string& payload, ttrpc::Reply reply);
  void start(const std::string& payload, ttrpc::Reply reply);
  void remove(const std::string& payload, ttrpc::Reply reply);
  void state(const std::string& payload, ttrpc::Reply reply);
  void wait(const std::string& payload, ttrpc::Reply reply);
  void kill(const std::string& payload, ttrpc::Reply reply);
  void pids(const std::string& payload, ttrpc::Reply reply);
  void pause(const std::string& payload, ttrpc::Reply reply);
  void resume(const std::string& payload, ttrpc::Reply reply);
  void stats(const std::string& payload, ttrpc::Reply reply);
  void connect(const std::string& payload, ttrpc::Reply reply);
  void close_io(const std::string& payload, ttrpc::Reply reply);
  void shut_down(const std::string& payload, ttrpc::Reply reply);
  void resize_pty(const std::string& payload, ttrpc::Reply reply);

  // exec_service.cpp
  void exec(const std::string& payload, ttrpc::Reply reply);
  void start_exec(Task& task, const std::string& exec_id, ttrpc::Reply reply);
  void remove_exec(Task& task, const std::string& exec_id, ttrpc::Reply reply);
  void exec_state(const Task& task, const std::string& exec_id, ttrpc::Reply reply);
  // Of the task when `exec_id` is empty.
  void publish_exit(const std::string& exec_id, const TaskEnd& end);
  void answer_waiters(const std::string& exec_id, const TaskEnd& end);
  void wait_for(const std::optional<TaskEnd>& end, const std::string& exec_id, ttrpc::Reply reply);

  [[nodiscard]] Task::Answer tell_paused(Topic topic, ttrpc::Reply reply);
  void on_created(base::Result<pid_t> pid, const std::shared_ptr<ttrpc::Reply>& reply);
  void on_end(const TaskEnd& end);
  // Reads a request and finds the task that it names. nullptr: the reply was the failure (kInvalidArgument for a
  // malformed request, kNotFound for another id and for an exec id that is not known).
  template <typename Request>
  Task* task_of(const std::string& payload, Request& request, ttrpc::Reply& reply);

  CommandLine line_;
  Task::Env env_;
  std::function<void()> shutdown_;
  std::unique_ptr<Task> task_;
  pid_t pid_ = 0;
  bool created_ = false;      // Create was answered with success
  bool terminating_ = false;
  std::vector<std::pair<std::string, ttrpc::Reply>> waiters_;  // of an exec id; empty: of the task
};

}  // namespace cellrund::shim
