// The live view of jobs: what the sockets read and wait on. One entry per job of this run of the daemon; older jobs are
// read from the ledger. Thread-safe.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "base/fd.hpp"
#include "base/guarded.hpp"
#include "cell/node.hpp"

namespace cellrund::cell {

enum class CancelCause { kNone, kUser, kOperator, kShutdown, kKillSwitch, kEgressQuota, kEgressUnproven, kLogLimit };
// What a job that was ended for this cause is closed with; kNone for kNone.
[[nodiscard]] model::Reason reason_of(CancelCause cause) noexcept;

// Raised by any thread, watched by the job's cell thread. The first cause wins.
class CancelFlag {
 public:
  static base::Result<std::shared_ptr<CancelFlag>> create();
  void raise(CancelCause cause);
  [[nodiscard]] CancelCause cause() const;
  [[nodiscard]] int fd() const noexcept { return event_.get(); }  // readable once raised
  // For waits that are not a poll(2): stopped once raised.
  [[nodiscard]] std::stop_token stop() const noexcept { return stop_.get_token(); }
  [[nodiscard]] const std::atomic<bool>& raised() const noexcept { return raised_; }

 private:
  explicit CancelFlag(base::UniqueFd event) : event_(std::move(event)) {}
  base::UniqueFd event_;
  std::atomic<CancelCause> cause_{CancelCause::kNone};
  std::atomic<bool> raised_{false};
  std::stop_source stop_;
};

class JobTable {
 public:
  void insert(JobView view, std::shared_ptr<CancelFlag> cancel);
  [[nodiscard]] std::optional<JobView> get(const std::string& uid);
  [[nodiscard]] std::vector<JobView> list(std::size_t limit);  // newest first
  [[nodiscard]] std::shared_ptr<CancelFlag> cancel_flag(const std::string& uid);

  // Applies `change` under the lock, raises the version and wakes waiters.
  void update(const std::string& uid, const std::function<void(JobView&)>& change);
  void set_log_bytes(const std::string& uid, std::uint64_t bytes);
  [[nodiscard]] std::uint64_t log_bytes(const std::string& uid);
  void wait_change(const std::string& uid, std::uint64_t seen_version, std::uint64_t seen_log_bytes, base::Deadline deadline);

 private:
  struct Entry {
    JobView view;
    std::uint64_t log_bytes = 0;
    std::shared_ptr<CancelFlag> cancel;  // shared with the cell thread
  };
  struct State {
    std::map<std::string, Entry> jobs;
    std::deque<std::string> order;  // oldest first
  };
  // Closed jobs beyond this many leave the table; the ledger keeps them.
  static constexpr std::size_t kKeep = 4096;

  base::Guarded<State> state_;
  std::condition_variable changed_;
};

}  // namespace cellrund::cell
