// One task: a cell from Create to Delete, as a state machine on the loop's thread.
//
//   create ─► preparing ─(accelerator known, root image ready, VMM launched and checked)─► created
//   start  ─► starting ─(guest ready: START sent, deadline armed)─► running
//   any    ─► stopping ─(VMM reaped)─► stopped ─► deleted
//
// The deadline needs nobody: once START is sent, timers of this process end the cell, whatever the guest, containerd or
// the daemon do. Every way to the end goes through the VMM's death, so a stopped task has no process.
//
// Pausing stops the virtual processors and nothing else: the deadline goes on. At the deadline a paused guest cannot hear its
// stop signal and nobody wakes it; at deadline plus grace its VMM is killed like any other.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/clock.hpp"
#include "base/result.hpp"
#include "host/cgroup.hpp"
#include "shim/accel.hpp"
#include "shim/broker.hpp"
#include "shim/bundle_files.hpp"
#include "shim/cell_group.hpp"
#include "shim/children.hpp"
#include "shim/config.hpp"
#include "shim/exec.hpp"
#include "shim/loop.hpp"
#include "shim/machine.hpp"
#include "shim/process_stdio.hpp"
#include "shim/rootfs.hpp"
#include "shim/secret_channel.hpp"
#include "shim/spec.hpp"
#include "shim/uid_pool.hpp"

namespace cellrund::shim {

struct TaskRequest {
  std::string id;
  std::string bundle;
  std::vector<RootfsMount> rootfs;
  StdioPaths stdio;
  std::string creation;  // the event of it, as EventSource has it
};

class Task {
 public:
  enum class State { kPreparing, kCreated, kStarting, kRunning, kStopping, kStopped };

  struct Env {
    Loop& loop;
    Children& children;
    std::string self;         // absolute path of this program, for the boot probe
    std::string config_path;  // as given on the command line; empty: found by itself
    base::ProcessId shim;
    std::string socket_path;
    PublisherOptions publisher;
    Broker& broker;  // runs from the check of the VMM on
  };
  using Answer = std::function<void(base::Result<pid_t>)>;  // called exactly once

  // Answers with the VMM's pid when it runs confined, or with the failure, after which no process is left and only
  // destruction remains. `ended` is called once, if ever the task was created, and after `exec_ended` of each exec that was
  // started.
  static std::unique_ptr<Task> create(Env env, Config config, TaskRequest request, Answer created,
                                      std::function<void(const TaskEnd&)> ended,
                                      std::function<void(const std::string&, const TaskEnd&)> exec_ended);
  Task(const Task&) = delete;
  Task& operator=(const Task&) = delete;
  Task(Task&&) = delete;
  Task& operator=(Task&&) = delete;
  ~Task();

  // Answers when START was sent, or when it is certain that it never will be.
  void start(Answer started);
  base::Status signal(int signo);
  // Answers when the VMM has stopped or continued the guest. kFailedPrecondition unless it runs, or is paused.
  void pause(Answer paused);
  void resume(Answer resumed);
  // kFailedPrecondition when the task has no cgroup.
  base::Result<host::CgroupLoad> load() const;
  void close_stdin();
  // Processes beside the first. The id of every call but the first two must be known: exec() says.
  base::Status add_exec(const std::string& id, StdioPaths stdio, std::string_view process_json);
  [[nodiscard]] const Exec* exec(const std::string& id) const;
  // Answers when the guest has started it, or when it is certain that it never will.
  void start_exec(const std::string& id, Answer started);
  base::Status signal_exec(const std::string& id, int signo);
  void close_exec_stdin(const std::string& id);
  base::Result<TaskEnd> delete_exec(const std::string& id);
  // Empty: of the first process. kFailedPrecondition without a terminal. Before its start too.
  base::Status resize(const std::string& exec_id, wire::WindowSize size);
  // After kStopped. Gives back what the host still holds for it; failures are logged, and `delete` tries again.
  void release();

  [[nodiscard]] State state() const noexcept { return state_; }
  [[nodiscard]] bool paused() const noexcept { return paused_; }
  [[nodiscard]] const TaskRequest& request() const noexcept { return request_; }
  [[nodiscard]] pid_t pid() const noexcept { return machine_ ? machine_->id().pid : 0; }
  [[nodiscard]] const std::optional<TaskEnd>& end() const noexcept { return ended_; }

 private:
  Task(Env env, Config config, TaskRequest request, Answer created, std::function<void(const TaskEnd&)> ended,
       std::function<void(const std::string&, const TaskEnd&)> exec_ended);

  // task_create.cpp: each step goes on to the next, at once or when a child has done its work.
  base::Status prepare();
  base::Status find_accelerator();
  base::Status make_rootfs();
  base::Status launch();
  base::Status enter_cgroup(const base::ProcessId& vmm);
  void on_checked(base::Result<VmmStatus> checked);
  // From then on this process holds nothing that a guest could want.
  base::Status confine(const VmmStatus& checked);
  void fail_create(base::Error error);
  void go_on(base::Status step);

  // task_run.cpp
  void on_event(wire::Event& event);
  void on_restarted();
  void on_committed(base::Status committed);
  void set_paused(bool paused, Answer answer);
  void on_paused(bool paused);
  void on_exit_event(const wire::Exit& exit);
  void on_died(base::ExitStatus exit);
  void begin();
  void begin_if_ready();
  base::Status hand_over_secrets();
  void on_secret_timer();
  void on_deadline();
  void on_deadline_and_grace();
  void stop_because(EndKind kind, int value, std::string message);
  void kill_vmm(std::string_view rung);
  void finish(End end);

  // task_exec.cpp
  [[nodiscard]] Exec* exec_numbered(std::uint32_t number);
  void on_exec_event(std::uint32_t number, wire::Event& event);
  void end_exec(Exec& exec, std::uint32_t status);
  void end_execs();

  Env env_;
  Config config_;
  TaskRequest request_;
  Answer created_;
  Answer started_;
  Answer pausing_;  // of a pause or a resume that the VMM has not answered yet
  std::function<void(const TaskEnd&)> on_end_;
  std::function<void(const std::string&, const TaskEnd&)> on_exec_end_;
  State state_ = State::kPreparing;

  CellPlan plan_;
  std::optional<GuestImages> images_;
  AccelAnswer accel_;
  HeldUid uid_;
  base::UniqueFd netns_;
  base::UniqueFd rootfs_;
  std::optional<RootfsBuild> build_;
  base::PidFd probe_;
  std::optional<CellGroup> group_;
  std::unique_ptr<Machine> machine_;
  std::unique_ptr<ProcessStdio> stdio_;
  std::map<std::string, Exec> execs_;
  std::vector<std::unique_ptr<ProcessStdio>> leaving_;  // of deleted execs, whose readers are not through yet
  std::string guest_release_;

  int restarts_ = 0;          // of the guest, before START
  bool committed_ = false;    // the guest is ready, and a reset would end it
  bool paused_ = false;
  std::unique_ptr<Timer> step_timer_;      // bounds each helper, then the boot, then the guest's answer to KILL
  std::unique_ptr<Timer> deadline_timer_;
  std::unique_ptr<Timer> final_timer_;     // deadline plus grace
  std::optional<base::BootTime> deadline_;
  std::optional<base::BootTime> deadline_fired_;
  std::unique_ptr<SecretChannel> secret_channel_;          // until cellrund has handed them over
  std::optional<std::vector<wire::NamedSecret>> secrets_;  // until START: then their values are the guest's alone
  std::unique_ptr<Timer> secret_timer_;
  std::vector<std::pair<std::string, base::BootTime>> to_revoke_;  // and when
  std::vector<std::pair<std::string, base::BootTime>> revoked_;
  std::vector<std::string> ladder_;
  std::optional<End> verdict_;             // why the VMM is being ended, before it is dead
  std::optional<TaskEnd> ended_;
};

}  // namespace cellrund::shim
