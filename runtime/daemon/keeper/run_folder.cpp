#include "daemon/keeper/run_folder.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "base/file.hpp"

namespace cellrund::daemon::keeper {

base::Result<std::optional<Lock>> Lock::try_acquire(const std::string& run_dir) {
  const std::string path = lock_path(run_dir);
  for (;;) {
    base::UniqueFd fd = CR_TRY(base::open_file(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0600));
    if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
      if (errno == EWOULDBLOCK) {
        return std::optional<Lock>{};
      }
      return base::Error::from_errno("flock " + path);
    }
    // The file may have been unlinked between the two calls by a keeper that ended: then this lock guards nothing.
    const auto by_path = base::file_id(path);
    if (by_path.ok() && *by_path == CR_TRY(base::file_id(fd.get()))) {
      return std::optional<Lock>(Lock(std::move(fd), path));
    }
  }
}

base::Status Lock::write(const KeeperState& state) {
  const std::string text = encode(state);
  // In place, since the lock belongs to this very file; readers take a half-written one for none.
  if (::ftruncate(fd_.get(), 0) != 0 ||
      ::pwrite(fd_.get(), text.data(), text.size(), 0) != static_cast<ssize_t>(text.size())) {
    return base::Error::from_errno("write " + path_);
  }
  return base::ok();
}

base::Status Lock::remove() {
  auto removed = base::remove_file(path_);
  fd_.reset();
  return removed;
}

base::Result<FolderWatch> FolderWatch::create(const std::string& folder) {
  base::UniqueFd fd(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  if (!fd) {
    return base::Error::from_errno("inotify_init1");
  }
  constexpr std::uint32_t kEvents = IN_CREATE | IN_DELETE | IN_MOVED_TO | IN_MODIFY | IN_CLOSE_WRITE;
  if (::inotify_add_watch(fd.get(), folder.c_str(), kEvents | IN_ONLYDIR) < 0) {
    return base::Error::from_errno("inotify_add_watch " + folder);
  }
  return FolderWatch(std::move(fd));
}

void FolderWatch::drain() noexcept {
  std::array<char, 4096> buffer{};
  while (::read(fd_.get(), buffer.data(), buffer.size()) > 0) {
  }
}

base::Status FolderWatch::wait(base::Deadline deadline) {
  (void)CR_TRY(base::wait_readable(fd_.get(), deadline));
  drain();
  return base::ok();
}

}  // namespace cellrund::daemon::keeper
