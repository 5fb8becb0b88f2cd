// Keeper: keeps one containerd alive for one node. Single-threaded; waits on descriptors only.
#pragma once

#include <optional>

#include "base/fd.hpp"
#include "base/process.hpp"
#include "base/result.hpp"
#include "daemon/keeper/config.hpp"
#include "daemon/keeper/run_folder.hpp"
#include "daemon/keeper/state.hpp"

namespace cellrund::daemon::keeper {

// Whom to tell that containerd answers, or why it does not; see start.hpp. Tells once.
class ReadyReport {
 public:
  explicit ReadyReport(base::UniqueFd fd) : fd_(std::move(fd)) {}
  void serving(const base::ProcessId& keeper, const ContainerdState& containerd);
  void failed(const base::Error& error);

 private:
  void tell(const std::string& line);
  base::UniqueFd fd_;
};

class Keeper {
 public:
  // Blocks TERM, INT, HUP and CHLD for the process, takes them by signalfd(2), and has orphans of containerd (shims) come
  // to this process, which reaps them.
  // `report` is borrowed and outlives the keeper.
  static base::Result<Keeper> create(Config config, Lock lock, ReadyReport& report);
  // Returns after TERM or INT with containerd gone, or with the reason why it cannot go on: containerd never answered
  // after its first start, or one does not die.
  base::Status run();

 private:
  enum class Wake { kExited, kStop, kCheck, kTick, kChanged };

  Keeper(Config config, Lock lock, ReadyReport& report, base::UniqueFd signals, FolderWatch sockets)
      : config_(std::move(config)),
        lock_(std::move(lock)),
        report_(&report),
        signals_(std::move(signals)),
        sockets_(std::move(sockets)) {}

  base::Status adopt();
  // kUnavailable when it exited, kDeadlineExceeded when it is silent, kCancelled when we were told to stop.
  base::Status await_answer(base::Deadline deadline);
  base::Status publish();
  // Until containerd has exited, or does not answer any more and was killed, or we were told to stop.
  base::Status watch();
  base::Status shut_down();
  Wake wait(base::Deadline deadline, bool for_sockets);

  Config config_;
  Lock lock_;
  ReadyReport* report_;
  base::UniqueFd signals_;
  FolderWatch sockets_;  // of the folder in which containerd's socket appears
  std::optional<base::PidFd> containerd_;
  std::uint64_t generation_ = 0;
  bool stopping_ = false;
};

// Removes what a stopped containerd and its keeper leave in the run folder, but for the log. Tries everything.
base::Status remove_leftovers(const std::string& run_dir);

}  // namespace cellrund::daemon::keeper
