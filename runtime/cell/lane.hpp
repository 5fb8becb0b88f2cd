// A lane: how one kind of cell is started, watched and signalled. The pipeline knows nothing else of it.
//
// What a lane must honour: the workload's first instruction runs only after start() was called with an armed network;
// the deadline counts from the moment START is sent and is held by the lane itself too; everything that it creates on
// the host was journalled before.
#pragma once

#include <poll.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "base/process.hpp"
#include "base/result.hpp"
#include "cell/job_table.hpp"
#include "cell/watchdog.hpp"
#include "host/cgroup.hpp"
#include "model/evidence.hpp"
#include "model/journal.hpp"
#include "model/node.hpp"
#include "model/stages.hpp"
#include "netpolicy/router.hpp"
#include "shim/wire/secrets.hpp"

namespace cellrund::cell {

enum class EndKind {
  kExited,            // value: exit code
  kSignaled,          // value: signal number
  kExecFailed,        // value: 126 or 127
  kVmmDied,           // without a word from the guest
  kShimDied,
  kRuntimeDied,       // containerd
  kAgentUnreachable,  // never said hello, or broke the protocol
};

// What the lane saw of a cell's end. `deadline_fired` is set when the lane's own timer ended it.
struct LaneEnd {
  EndKind kind = EndKind::kVmmDied;
  int value = 0;
  std::string message;  // untrusted when it came from the guest
  model::LimitFacts limits;  // what cell-init found; the host's counts are not the lane's to fill
  std::optional<base::BootTime> deadline_fired;
  std::vector<std::string> ladder;
  base::BootTime ended;
  std::vector<std::pair<std::string, base::BootTime>> revoked;  // secrets that the lane withdrew before that
};

struct StartFailure {
  model::Reason reason = model::Reason::kVmmStartFailed;
  std::string message;
};

// The command line after the image's config and the jobspec are put together.
struct Process {
  std::vector<std::string> args;
  std::vector<std::string> env;  // "NAME=value"
  std::string cwd;
};

// Everything a lane needs to start one cell. References outlive the running cell.
struct CellPlan {
  const model::CellName& name;
  const model::AdmittedJob& job;
  const model::PreparedImage& image;
  const model::PreparedInputs* inputs;  // null: the spec names none
  const netpolicy::NetworkedCell& network;
  const host::Cgroup& cgroup;
  Process process;
  std::vector<wire::NamedSecret> secrets;  // to be in the cell before START, and wiped here by then
  std::function<void()> on_secrets;        // called once, right before the first of them leaves this process
  std::string folder;  // <run>/cells/<uid>, made and journalled by the pipeline
  model::Journal& journal;
  const CancelFlag& cancel;
};

// Takes the workload's output as it comes.
class OutputSink {
 public:
  OutputSink() = default;
  OutputSink(const OutputSink&) = delete;
  OutputSink& operator=(const OutputSink&) = delete;
  OutputSink(OutputSink&&) = delete;
  OutputSink& operator=(OutputSink&&) = delete;
  virtual ~OutputSink() = default;
  virtual void write(Stream stream, base::BytesView bytes) = 0;
};

// One started cell. Used by its cell thread alone. Destroying it closes descriptors and kills nothing: teardown works
// from the inventory.
class RunningCell {
 public:
  RunningCell() = default;
  RunningCell(const RunningCell&) = delete;
  RunningCell& operator=(const RunningCell&) = delete;
  RunningCell(RunningCell&&) = delete;
  RunningCell& operator=(RunningCell&&) = delete;
  virtual ~RunningCell() = default;

  // Appends what to wait for.
  virtual void poll_on(std::vector<pollfd>& polls) const = 0;
  // Moves whatever is ready; never blocks. Call after each wait.
  virtual void service(OutputSink& sink) = 0;
  // Set once the cell has ended and its output was drained as far as it came.
  [[nodiscard]] virtual const std::optional<LaneEnd>& end() const = 0;
  // To the workload. A cell that has ended already is success. May take up to two seconds when the runtime hangs.
  virtual base::Status signal(int signo) = 0;
  // Fresh descriptors for the watchdog.
  virtual base::Result<KillTarget> kill_target() const = 0;
  // When START was sent.
  [[nodiscard]] virtual base::BootTime started() const = 0;
  // What the record says of the lane; host facts are read from /proc, not from the guest.
  [[nodiscard]] virtual model::LaneFacts facts() const = 0;
};

// cgroup.kill of the cell and pidfds of the named processes; processes that are gone are left out.
base::Result<KillTarget> kill_target_of(const host::Cgroup& cgroup, const std::vector<base::ProcessId>& processes);

class Lane {
 public:
  Lane() = default;
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;
  Lane(Lane&&) = delete;
  Lane& operator=(Lane&&) = delete;
  virtual ~Lane() = default;

  // What start() will make, to be journalled before it is called.
  [[nodiscard]] virtual model::Inventory intended(const model::CellName& name) const = 0;
  // Host memory that one cell takes beside what its spec asks for.
  [[nodiscard]] virtual std::uint64_t memory_overhead() const = 0;
  // Whether its cells are containerd objects.
  [[nodiscard]] virtual bool uses_containerd() const = 0;

  // Returns when START was sent, or at `deadline` with kStartDeadlineExceeded, or with any failure moments after
  // plan.cancel was raised. A partial start leaves only journalled
  // objects behind, for teardown. `sink` takes output that arrives during the start.
  virtual base::Result<std::unique_ptr<RunningCell>, StartFailure> start(CellPlan plan, base::Deadline deadline,
                                                                         OutputSink& sink) = 0;
};

}  // namespace cellrund::cell
