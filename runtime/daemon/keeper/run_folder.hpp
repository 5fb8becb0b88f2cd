// The run folder as two keepers, or a keeper and cellrund, meet in it: the lock, and waiting for a change.
#pragma once

#include <optional>
#include <string>

#include "base/clock.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"
#include "daemon/keeper/state.hpp"

namespace cellrund::daemon::keeper {

// flock(2) on <run>/keeper.lock. The kernel lets go of it when the keeper dies, however it dies.
class Lock {
 public:
  // nullopt while another keeper holds it.
  static base::Result<std::optional<Lock>> try_acquire(const std::string& run_dir);
  // Tells who holds it.
  base::Status write(const KeeperState& state);
  // Unlinks the file and lets go.
  base::Status remove();

 private:
  Lock(base::UniqueFd fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}
  base::UniqueFd fd_;
  std::string path_;
};

// inotify(7) on one folder: readable when an entry was made, removed, renamed or written.
class FolderWatch {
 public:
  static base::Result<FolderWatch> create(const std::string& folder);
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  void drain() noexcept;
  // Returns at the next change or the deadline, whichever is first.
  base::Status wait(base::Deadline deadline);

 private:
  explicit FolderWatch(base::UniqueFd fd) : fd_(std::move(fd)) {}
  base::UniqueFd fd_;
};

}  // namespace cellrund::daemon::keeper
