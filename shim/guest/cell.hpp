// Cell: the workload and the small init that is PID 1 of its pid namespace.
//
//   cell-init (agent)  ──ctl──►  namespace init  ──fork──►  workload
//
// The namespace init builds the root file system in its own mount namespace, starts the workload, passes signals on to
// it and reaps orphans. A workload that were PID 1 itself would ignore every signal that it has no handler for. When
// the workload ends, or the namespace init is killed, the kernel kills everything else in the namespace.
#pragma once

#include <memory>
#include <optional>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "shim/wire/messages.hpp"
#include "shim/wire/workload.hpp"

namespace cellrund::guest {

// The agent's ends; all non-blocking. Of a terminal: stdin_write and stdout_read are both its master, stderr_read is none.
struct StdioPipes {
  base::UniqueFd stdin_write;
  base::UniqueFd stdout_read;
  base::UniqueFd stderr_read;
};

class Cell {
 public:
  // clone3(2) with new pid, mount, IPC, UTS and cgroup namespaces, into `cgroup_fd` if that is not negative. The child
  // starts to prepare at once. `channel_fd` is closed in the child.
  static base::Result<Cell> create(const wire::Workload& workload, int cgroup_fd, int channel_fd);

  // Readable when report() has something. Ask again after each report: it changes.
  [[nodiscard]] int report_fd() const noexcept { return ctl_ ? ctl_.get() : pidfd_.get(); }
  enum class Event { kNothing, kPrepared, kStarted, kEnded, kExecStarted, kExecEnded };
  // Never blocks. After kEnded every process of the namespace is dead and exit() tells how the workload ended; do not
  // call again.
  base::Result<Event> report();
  [[nodiscard]] const wire::Exit& exit() const noexcept { return exit_; }
  // After kExecStarted or kExecEnded: of which process, how it ended, and its terminal if it was started with one.
  struct ExecReport {
    std::uint32_t number = 0;
    wire::Exit exit;
    std::optional<StdioPipes> terminal;
  };
  // The mount of /outputs, which stays when the workload's namespaces are gone; -1: it has none.
  [[nodiscard]] int outputs_fd() const noexcept { return outputs_.get(); }
  [[nodiscard]] ExecReport& exec_report() noexcept { return exec_report_; }

  // After kPrepared.
  base::Status start();
  // SIGKILL ends the whole namespace; every other signal goes to the workload.
  base::Status signal(int signo);
  // Complete after kPrepared.
  [[nodiscard]] StdioPipes& stdio() noexcept { return stdio_; }
  // After kPrepared: the folder for secrets; not valid when the workload has none.
  [[nodiscard]] base::UniqueFd& secrets() noexcept { return secrets_; }
  // After kStarted. The pipes of the new process; none when it has a terminal, which comes with kExecStarted.
  base::Result<std::optional<StdioPipes>> exec(std::uint32_t number, const wire::Process& process);
  base::Status signal_exec(std::uint32_t number, int signo);

 private:
  Cell() = default;
  base::Result<Event> reap();
  base::Status command(base::BytesView message, std::initializer_list<int> fds = {});

  base::UniqueFd pidfd_;
  base::UniqueFd ctl_;
  StdioPipes stdio_;
  base::UniqueFd outputs_;
  base::UniqueFd secrets_;
  wire::Exit exit_;
  ExecReport exec_report_;
  bool started_ = false;
  bool have_exit_ = false;
  bool kill_sent_ = false;
};

}  // namespace cellrund::guest
