#include "residue/walk.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <functional>
#include <set>

#include "base/file.hpp"
#include "residue/proc_text.hpp"

namespace cellrund::residue {
namespace {

constexpr std::size_t kMaxText = 64UL * 1024;  // of one cmdline, environ or cgroup file; the rest cannot hide a marker
                                               // of ours, which our own programs put in front
constexpr std::size_t kMaxHolders = 64;        // per namespace
constexpr std::size_t kMaxClaims = 512;

// Programs of ours and of containerd that carry a cell's name in their arguments. Anyone else who names a cell (an
// operator's grep, `cellrun inspect`) is only talking about it.
constexpr std::array<std::string_view, 7> kRuntimes{"containerd-shim", "qemu-system", "cell-init", "cellrun-",
                                                    "virtiofsd",       "runc",        "mkfs.erofs"};

bool vanished(int err) noexcept { return err == ENOENT || err == ESRCH || err == ENOTDIR; }

// Failures of one kind are told once, with a count: a host-wide EACCES is one fact, not ten thousand.
class Failures {
 public:
  void add(pid_t pid, std::string_view what, int err) {
    for (Kind& kind : kinds_) {
      if (kind.what == what && kind.err == err) {
        ++kind.count;
        return;
      }
    }
    kinds_.push_back({std::string(what), err, pid, 1});
  }
  void write_to(std::vector<std::string>& out) const {
    for (const Kind& kind : kinds_) {
      out.push_back(base::Error::from_errno("read /proc/" + std::to_string(kind.first) + "/" + kind.what, kind.err).message() +
                    (kind.count > 1 ? ", and of " + std::to_string(kind.count - 1) + " more" : ""));
    }
  }

 private:
  struct Kind {
    std::string what;
    int err;
    pid_t first;
    std::size_t count;
  };
  std::vector<Kind> kinds_;
};

// Entry names of an open folder, straight from getdents64(2): readdir(3) would allocate a stream per process.
template <typename F>
int for_each_entry(int dir_fd, F each) {
  alignas(8) std::array<char, 8192> buffer;
  struct Entry {  // struct linux_dirent64
    std::uint64_t ino;
    std::int64_t off;
    unsigned short reclen;
    unsigned char type;
    char name[1];
  };
  for (;;) {
    const long n = ::syscall(SYS_getdents64, dir_fd, buffer.data(), buffer.size());
    if (n < 0) {
      return errno;
    }
    if (n == 0) {
      return 0;
    }
    for (long at = 0; at < n;) {
      const char* raw = buffer.data() + at;
      unsigned short length = 0;
      std::memcpy(&length, raw + offsetof(Entry, reclen), sizeof length);
      const char* name = raw + offsetof(Entry, name);
      if (name[0] >= '0' && name[0] <= '9') {  // pids, tids and descriptor numbers only
        if (!each(name)) {
          return 0;
        }
      }
      at += length;
    }
  }
}

base::Result<std::string> prefix_of(int dir, const char* name) {
  const base::UniqueFd fd = CR_TRY(base::open_at(dir, name, O_RDONLY));
  std::string out;
  std::array<char, 4096> buffer;
  while (out.size() < kMaxText) {
    const ssize_t n = ::read(fd.get(), buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n < 0) {
      return base::Error::from_errno("read");
    }
    if (n == 0) {
      break;
    }
    out.append(buffer.data(), static_cast<std::size_t>(n));
  }
  return out;
}

base::Result<Walker> identify_at(int dir, pid_t pid) {
  const std::string text = CR_TRY(prefix_of(dir, "stat"));
  auto stat = parse_stat(text);
  if (!stat) {
    return base::Error(base::Errc::kDataLoss, "/proc/" + std::to_string(pid) + "/stat is malformed");
  }
  return Walker{pid, stat->start_time, std::move(stat->comm), stat->exiting};
}

class Walking {
 public:
  Walking(const Subject& subject, base::Deadline deadline) : subject_(subject), deadline_(deadline) {}

  Walk run() {
    const std::string& proc = subject_.paths().proc;
    auto dir = base::open_file(proc, O_RDONLY | O_DIRECTORY);
    if (!dir.ok()) {
      walk_.failures.push_back(dir.error().message());
      return std::move(walk_);
    }
    const int err = for_each_entry(dir->get(), [&](const char* name) {
      if (deadline_.expired()) {
        walk_.failures.push_back("walk of " + proc + ": the deadline passed");
        return false;
      }
      const auto pid = parse_number(name);
      if (pid && *pid <= INT32_MAX) {
        visit(dir->get(), name, static_cast<pid_t>(*pid));
      }
      return true;
    });
    if (err != 0) {
      walk_.failures.push_back(base::Error::from_errno("list " + proc, err).message());
    }
    failures_.write_to(walk_.failures);
    return std::move(walk_);
  }

 private:
  void visit(int proc_fd, const char* name, pid_t pid) {
    const base::UniqueFd dir(::openat(proc_fd, name, O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!dir) {
      fail(pid, "", errno);
      return;
    }
    namespaces(dir.get(), pid, "ns/net", "ns/mnt");
    held_folder(dir.get(), pid, "cwd");
    held_folder(dir.get(), pid, "root");
    descriptors(dir.get(), pid);
    arguments(dir.get(), pid, "cmdline");
    if (subject_.vmm_uid()) {
      struct stat st {};
      if (::fstat(dir.get(), &st) == 0 && st.st_uid == *subject_.vmm_uid()) {
        claim(dir.get(), pid, "uid " + std::to_string(st.st_uid) + " of the cell's VMM");
      }
    }
    if (subject_.breadth() == Breadth::kNode) {
      arguments(dir.get(), pid, "environ");
      groups(dir.get(), pid);
      threads(dir.get(), pid, name);
    }
  }

  void namespaces(int dir, pid_t pid, const char* net, const char* mnt) {
    std::array<char, 64> buffer;
    const auto note = [&](const char* path, std::string_view type, auto& into) {
      const ssize_t n = ::readlinkat(dir, path, buffer.data(), buffer.size());
      if (n < 0) {
        fail(pid, path, errno);
      } else if (const auto ino = namespace_inode({buffer.data(), static_cast<std::size_t>(n)}, type)) {
        hold(into[*ino], pid, path);
      }
    };
    note(net, "net", walk_.network);
    note(mnt, "mnt", walk_.mount);
  }

  static void hold(std::vector<NamespaceHolder>& holders, pid_t pid, std::string via) {
    if (holders.size() < kMaxHolders) {
      holders.push_back({pid, std::move(via)});
    }
  }

  void held_folder(int dir, pid_t pid, const char* what) {
    const ssize_t n = ::readlinkat(dir, what, target_.data(), target_.size());
    if (n < 0 && errno == ENAMETOOLONG) {
      file_of_long_path(dir, what, dir, pid, what);
    } else if (n < 0) {
      fail(pid, what, errno);
    } else {
      file({target_.data(), static_cast<std::size_t>(n)}, dir, what, dir, pid, what);
    }
  }

  void descriptors(int dir, pid_t pid) {
    const base::UniqueFd fds(::openat(dir, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fds) {
      fail(pid, "fd", errno);
      return;
    }
    std::size_t seen = 0;
    const int err = for_each_entry(fds.get(), [&](const char* number) {
      const ssize_t n = ::readlinkat(fds.get(), number, target_.data(), target_.size());
      if (n < 0) {
        if (errno == ENAMETOOLONG) {
          file_of_long_path(fds.get(), number, dir, pid, std::string("fd/") + number);
        } else {
          fail(pid, "fd/N", errno);
        }
        return true;
      }
      const std::string_view target(target_.data(), static_cast<std::size_t>(n));
      if (target.front() == '/') {
        file(target, fds.get(), number, dir, pid, std::string("fd/") + number);
      } else if (const auto net = namespace_inode(target, "net")) {
        hold(walk_.network[*net], pid, std::string("fd/") + number);
      } else if (const auto mnt = namespace_inode(target, "mnt")) {
        hold(walk_.mount[*mnt], pid, std::string("fd/") + number);
      }
      constexpr std::size_t kBetweenLooksAtTheClock = 1024;
      if (++seen % kBetweenLooksAtTheClock == 0 && deadline_.expired()) {
        fail(pid, "fd", ETIMEDOUT);
        return false;
      }
      return true;
    });
    if (err != 0) {
      fail(pid, "fd", err);
    }
  }

  // `at`/`name` is the magic link itself, to stat what it leads to.
  void file(std::string_view target, int at, const char* name, int dir, pid_t pid, std::string via) {
    std::string why = subject_.why_path(target);
    if (why.empty() || !named_by_node(target, at, name, dir, pid)) {
      constexpr std::string_view kDeleted = " (deleted)";
      std::string_view path = target;
      if (path.ends_with(kDeleted)) {
        path.remove_suffix(kDeleted.size());
      }
      const model::InventoryItem* item = subject_.journalled_path(path);
      const auto id = item != nullptr && item->name == path ? parse_object_id(item->identity) : std::nullopt;
      if (!id || file_behind(at, name) != id->file) {
        return;
      }
      why = "journalled identity " + item->identity;
    }
    hold_file(dir, pid, std::move(via), std::string(target), std::move(why));
  }

  // Anybody can open a file under a name of ours. The name counts where nobody else can have given it: below the node's
  // folders, through a mount of our own namespace (paths of another one can be made up); or held by root or the node,
  // unless the file is somebody else's (a daemon that only reads what users wrote).
  bool named_by_node(std::string_view target, int at, const char* name, int dir, pid_t pid) {
    struct statx st {};
    const bool known = ::statx(at, name, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_UID | STATX_MNT_ID, &st) == 0;
    if (known && (st.stx_mask & STATX_MNT_ID) != 0 && subject_.in_node_folder(target) && our_mounts().contains(st.stx_mnt_id)) {
      return true;
    }
    return trusted(dir, pid) && (!known || subject_.trusts_uid(st.stx_uid));
  }

  const std::set<std::uint64_t>& our_mounts() {
    if (!our_mounts_) {
      our_mounts_.emplace();
      constexpr std::size_t kMaxMountinfo = 16UL << 20U;
      const auto text = base::read_file(subject_.paths().proc + "/self/mountinfo", kMaxMountinfo);
      if (!text.ok()) {
        walk_.failures.push_back(text.error().message());
        return *our_mounts_;
      }
      for_each_line(*text, [&](std::string_view line) {
        if (const auto mount = parse_mount_line(line)) {
          our_mounts_->insert(mount->id);
        }
      });
    }
    return *our_mounts_;
  }

  // Whether root or the node runs the process. The owner of its folder in /proc does not tell: that is root for every
  // process which is not dumpable.
  bool trusted(int dir, pid_t pid) {
    const auto text = prefix_of(dir, "status");
    if (!text.ok()) {
      fail(pid, "status", text.error().os_errno());
      return !vanished(text.error().os_errno());
    }
    const auto uid = real_uid(*text);
    return !uid || subject_.trusts_uid(*uid);
  }

  // d_path() gives ENAMETOOLONG above PATH_MAX, and everybody can make such a path. None of ours is that long, so only
  // the identity of what is held can make it the cell's (a folder of ours that somebody moved).
  void file_of_long_path(int at, const char* name, int dir, pid_t pid, std::string via) {
    const auto id = file_behind(at, name);
    const model::InventoryItem* item = id ? subject_.journalled_file(*id) : nullptr;
    if (item != nullptr) {
      hold_file(dir, pid, std::move(via), item->name, "journalled identity " + item->identity + " under a path too long to read");
    }
  }

  // What a magic link leads to. What the kernel has cached is enough: a server of the file system (FUSE) is not asked,
  // since it may be anybody's and never answer.
  static std::optional<base::FileId> file_behind(int at, const char* name) {
    struct statx st {};
    if (::statx(at, name, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_INO, &st) != 0) {
      return std::nullopt;
    }
    return base::FileId{::makedev(st.stx_dev_major, st.stx_dev_minor), st.stx_ino};
  }

  void hold_file(int dir, pid_t pid, std::string via, std::string target, std::string why) {
    auto process = identify_at(dir, pid);
    if (process.ok() && walk_.files.size() < kMaxClaims) {
      walk_.files.push_back({std::move(*process), std::move(via), std::move(target), std::move(why)});
    }
  }

  void arguments(int dir, pid_t pid, const char* what) {
    const auto text = prefix_of(dir, what);
    if (!text.ok()) {
      fail(pid, what, text.error().os_errno());
      return;
    }
    std::string why;
    for (const std::string_view argument : split_nul(*text)) {
      why = subject_.why_path(argument);
      if (!why.empty()) {
        break;
      }
    }
    if (why.empty()) {
      return;
    }
    const ssize_t n = ::readlinkat(dir, "exe", target_.data(), target_.size());
    if (n < 0) {
      if (errno != ENAMETOOLONG) {  // no program of ours lies that deep
        fail(pid, "exe", errno);
      }
      return;
    }
    std::string_view program(target_.data(), static_cast<std::size_t>(n));
    program.remove_prefix(program.rfind('/') + 1);
    if (std::any_of(kRuntimes.begin(), kRuntimes.end(), [&](std::string_view r) { return program.starts_with(r); }) &&
        trusted(dir, pid)) {
      claim(dir, pid, why + " in its " + what);
    }
  }

  void groups(int dir, pid_t pid) {
    const auto text = prefix_of(dir, "cgroup");
    if (!text.ok()) {
      fail(pid, "cgroup", text.error().os_errno());
      return;
    }
    std::string why;
    bool at_root = false;
    for_each_line(*text, [&](std::string_view line) {
      if (why.empty()) {
        why = subject_.why_cgroup(line);
        at_root = line.find(":/cellrun/") != std::string_view::npos;
      }
    });
    // Deeper, the folder may be in a subtree that a user was given to make folders in.
    if (!why.empty() && (at_root || trusted(dir, pid))) {
      claim(dir, pid, why);
    }
  }

  void threads(int dir, pid_t pid, const char* leader) {
    const base::UniqueFd tasks(::openat(dir, "task", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!tasks) {
      fail(pid, "task", errno);
      return;
    }
    const int err = for_each_entry(tasks.get(), [&](const char* tid) {
      if (std::string_view(tid) != leader) {
        const std::string base = std::string("task/") + tid;
        namespaces(dir, pid, (base + "/ns/net").c_str(), (base + "/ns/mnt").c_str());
      }
      return true;
    });
    if (err != 0) {
      fail(pid, "task", err);
    }
  }

  void claim(int dir, pid_t pid, std::string why) {
    auto process = identify_at(dir, pid);
    const bool known = std::any_of(walk_.processes.begin(), walk_.processes.end(),
                                   [&](const ClaimedProcess& c) { return c.process.pid == pid; });
    if (process.ok() && !known && walk_.processes.size() < kMaxClaims) {
      walk_.processes.push_back({std::move(*process), std::move(why)});
    }
  }

  void fail(pid_t pid, std::string_view what, int err) {
    if (pid == 1 && (err == EACCES || err == EPERM)) {
      walk_.closed_init = base::Error::from_errno("pid 1 is closed to root", err).message();
      if (what == "ns/mnt") {
        hold(walk_.mount[0], pid, "ns/mnt");
      }
    } else if (!vanished(err)) {
      failures_.add(pid, what, err);
    }
  }

  const Subject& subject_;
  base::Deadline deadline_;
  Walk walk_;
  Failures failures_;
  std::optional<std::set<std::uint64_t>> our_mounts_;
  std::array<char, 4096> target_{};
};

}  // namespace

base::Result<Walker> identify(const std::string& proc, pid_t pid) {
  auto dir = base::open_file(proc + "/" + std::to_string(pid), O_PATH | O_DIRECTORY);
  if (!dir.ok()) {
    if (vanished(dir.error().os_errno())) {
      return base::Error(base::Errc::kNotFound, "process " + std::to_string(pid) + " does not exist", ESRCH);
    }
    return std::move(dir).error();
  }
  auto walker = identify_at(dir->get(), pid);
  if (!walker.ok() && vanished(walker.error().os_errno())) {
    return base::Error(base::Errc::kNotFound, "process " + std::to_string(pid) + " does not exist", ESRCH);
  }
  return walker;
}

std::optional<pid_t> member_of_namespace(const std::string& proc, std::string_view type, std::uint64_t inode) {
  const auto dir = base::open_file(proc, O_RDONLY | O_DIRECTORY);
  std::optional<pid_t> member;
  if (!dir.ok()) {
    return member;
  }
  (void)for_each_entry(dir->get(), [&](const char* name) {  // what cannot be listed was reported by the walk
    std::array<char, 64> buffer;
    const std::string path = std::string(name) + "/ns/" + std::string(type);
    const ssize_t n = ::readlinkat(dir->get(), path.c_str(), buffer.data(), buffer.size());
    if (n > 0 && namespace_inode({buffer.data(), static_cast<std::size_t>(n)}, type) == inode) {
      member = static_cast<pid_t>(parse_number(name).value_or(0));
    }
    return !member;
  });
  return member;
}

Walk walk_processes(const Subject& subject, base::Deadline deadline) { return Walking(subject, deadline).run(); }

}  // namespace cellrund::residue
