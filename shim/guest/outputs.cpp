#include "shim/guest/outputs.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "base/file.hpp"
#include "shim/guest/paths.hpp"

namespace cellrund::guest {
namespace {

using base::Errc;
using base::Error;
using base::Status;
using base::UniqueFd;
using wire::OutputRefusal;

constexpr auto kReaderPatience = std::chrono::seconds(5);
constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kSlackBytes = 1ULL << 20U;
constexpr std::uint64_t kSlackInodes = 1024;

// What the archive goes through: a port that is full is waited for, but not for ever.
class Port {
 public:
  explicit Port(int fd) noexcept : fd_(fd) {}

  Status send(base::BytesView bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
      if (n > 0) {
        bytes = bytes.subspan(static_cast<std::size_t>(n));
        continue;
      }
      if (n < 0 && errno != EAGAIN && errno != EINTR) {
        return Error::from_errno("write outputs");
      }
      CR_CHECK(wait(POLLOUT));
    }
    return base::ok();
  }

  // The reader has all of it.
  Status await_taken() {
    while (true) {
      CR_CHECK(wait(POLLIN));
      std::uint8_t answer = 0;
      const ssize_t n = ::read(fd_, &answer, 1);
      if (n == 1) {
        return answer == wire::kArchiveTaken ? base::ok() : Status(Error(Errc::kDataLoss, "outputs: an unknown answer"));
      }
      if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        return Error(Errc::kUnavailable, "outputs: the reader went away without an answer");
      }
    }
  }

 private:
  Status wait(short event) const {
    const auto patience = base::Deadline::after(kReaderPatience);
    pollfd poll{fd_, event, 0};
    if (::poll(&poll, 1, patience.poll_timeout_ms()) == 0) {
      return Error(Errc::kDeadlineExceeded, "outputs: nobody reads them");
    }
    if ((poll.revents & event) == 0 && (poll.revents & (POLLERR | POLLHUP)) != 0) {
      return Error(Errc::kUnavailable, "outputs: the reader is gone");
    }
    return base::ok();
  }

  int fd_;
};

using Folder = std::unique_ptr<DIR, int (*)(DIR*)>;

class Walk {
 public:
  Walk(const wire::OutputsPlan& plan, int port) : plan_(plan), port_(port) {}

  Status run(int root) {
    CR_CHECK(port_.send(wire::archive_head()));
    CR_CHECK(enter(UniqueFd(::openat(root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)), ""));
    // Depth first, one descriptor a level; path_problem() bounds the depth before a folder is entered.
    while (!levels_.empty()) {
      errno = 0;
      const dirent* entry = ::readdir(levels_.back().folder.get());
      if (entry == nullptr) {
        levels_.pop_back();
        continue;
      }
      const std::string name = entry->d_name;
      if (name != "." && name != "..") {
        const std::string& above = levels_.back().path;
        CR_CHECK(visit(::dirfd(levels_.back().folder.get()), name, above.empty() ? name : above + "/" + name));
      }
    }
    CR_CHECK(port_.send(wire::end_record(unlisted_)));
    return port_.await_taken();
  }

 private:
  struct Level {
    Folder folder;
    std::string path;
  };

  Status enter(UniqueFd fd, const std::string& path) {
    Folder folder(fd ? ::fdopendir(fd.get()) : nullptr, &::closedir);
    if (!folder) {
      return refuse(path, OutputRefusal::kUnreadable);
    }
    (void)fd.release();  // closedir closes it
    levels_.push_back({std::move(folder), path});
    return base::ok();
  }

  Status refuse(const std::string& path, OutputRefusal why) {
    if (listed_ == wire::kMaxListedRefusals) {
      ++unlisted_;
      return base::ok();
    }
    ++listed_;
    return port_.send(wire::refused_record(path, why));
  }

  static OutputRefusal refusal_of(mode_t mode) {
    switch (mode & S_IFMT) {
      case S_IFLNK: return OutputRefusal::kSymlink;
      case S_IFIFO: return OutputRefusal::kFifo;
      case S_IFSOCK: return OutputRefusal::kSocket;
      case S_IFCHR:
      case S_IFBLK: return OutputRefusal::kDevice;
      default: return OutputRefusal::kOtherType;
    }
  }

  Status visit(int folder, const std::string& name, const std::string& path) {
    if (const auto problem = wire::path_problem(path)) {
      return refuse(path, *problem);  // of a folder: with all that is below
    }
    struct stat st {};
    if (::fstatat(folder, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
      return refuse(path, OutputRefusal::kUnreadable);
    }
    if (S_ISDIR(st.st_mode)) {
      return enter(UniqueFd(::openat(folder, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)), path);
    }
    if (!S_ISREG(st.st_mode)) {
      return refuse(path, refusal_of(st.st_mode));
    }
    const UniqueFd file(::openat(folder, name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
    if (!file || ::fstat(file.get(), &st) != 0 || !S_ISREG(st.st_mode)) {
      return refuse(path, OutputRefusal::kUnreadable);
    }
    return take(file.get(), st, path);
  }

  Status take(int file, const struct stat& st, const std::string& path) {
    const auto size = static_cast<std::uint64_t>(st.st_size);  // logical: holes count
    if (st.st_nlink > 1) {
      return refuse(path, OutputRefusal::kHardLink);
    }
    if (files_ == plan_.max_files) {
      return refuse(path, OutputRefusal::kFiles);
    }
    if (size > plan_.max_bytes - bytes_) {
      return refuse(path, OutputRefusal::kBytes);
    }
    if (path.size() > wire::kMaxOutputPaths - path_bytes_) {
      return refuse(path, OutputRefusal::kPaths);
    }
    ++files_;
    bytes_ += size;
    path_bytes_ += path.size();
    CR_CHECK(port_.send(wire::file_record(path, st.st_mode, size)));
    std::uint64_t sent = 0;
    bool whole = true;
    while (true) {
      const ssize_t n = ::read(file, piece_.data() + kHead, wire::kMaxPiece);
      if (n < 0 && errno == EINTR) {
        continue;
      }
      whole = n >= 0 && static_cast<std::uint64_t>(n) <= size - sent;
      if (n <= 0 || !whole) {
        break;
      }
      sent += static_cast<std::uint64_t>(n);
      const auto head = wire::piece_head(static_cast<std::uint32_t>(n));
      std::copy(head.begin(), head.end(), piece_.begin());
      CR_CHECK(port_.send({piece_.data(), kHead + static_cast<std::size_t>(n)}));
    }
    return port_.send(wire::file_end(whole && sent == size));
  }

  static constexpr std::size_t kHead = 4;

  const wire::OutputsPlan& plan_;
  Port port_;
  std::vector<Level> levels_;
  base::Bytes piece_ = base::Bytes(kHead + wire::kMaxPiece);
  std::uint64_t files_ = 0;
  std::uint64_t bytes_ = 0;
  std::uint64_t path_bytes_ = 0;
  std::size_t listed_ = 0;
  std::uint64_t unlisted_ = 0;
};

}  // namespace

base::Result<UniqueFd> make_outputs(const wire::Workload& workload) {
  const wire::OutputsPlan& plan = *workload.outputs;
  const UniqueFd fs(static_cast<int>(::syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC)));
  if (!fs) {
    return Error::from_errno("fsopen outputs");
  }
  const std::array<std::pair<const char*, std::string>, 5> options{
      {{"size", std::to_string((plan.max_bytes + kPage - 1) / kPage * kPage + plan.max_files * kPage + kSlackBytes)},
       {"nr_inodes", std::to_string(2 * plan.max_files + kSlackInodes)},
       {"uid", std::to_string(workload.uid)},
       {"gid", std::to_string(workload.gid)},
       {"mode", "0700"}}};
  for (const auto& [key, value] : options) {
    if (::syscall(SYS_fsconfig, fs.get(), FSCONFIG_SET_STRING, key, value.c_str(), 0) != 0) {
      return Error::from_errno(std::string("fsconfig outputs ") + key);
    }
  }
  if (::syscall(SYS_fsconfig, fs.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0) {
    return Error::from_errno("fsconfig outputs create");
  }
  UniqueFd mount(static_cast<int>(::syscall(SYS_fsmount, fs.get(), FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)));
  if (!mount) {
    return Error::from_errno("fsmount outputs");
  }
  return mount;
}

Status attach_outputs(int mount_fd) {
  const UniqueFd target = CR_TRY(open_dir("/outputs", 0755));
  if (::syscall(SYS_move_mount, mount_fd, "", target.get(), "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) != 0) {
    return Error::from_errno("mount /outputs");
  }
  return base::ok();
}

Status send_outputs(int mount_fd, const wire::OutputsPlan& plan, int port) { return Walk(plan, port).run(mount_fd); }

}  // namespace cellrund::guest
