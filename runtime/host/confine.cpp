#include "host/confine.hpp"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/file.hpp"

// glibc's <sys/mount.h> and <linux/mount.h> cannot be included together; the few flags of mount(2) are stable ABI.
extern "C" {
int mount(const char* source, const char* target, const char* type, unsigned long flags, const void* data) noexcept;
int umount2(const char* target, int flags) noexcept;
}

namespace cellrund::host {
namespace {

using base::Error;
using base::Result;
using base::Status;
using base::UniqueFd;

constexpr unsigned long kMsRec = 16384;           // MS_REC
constexpr unsigned long kMsPrivate = 1UL << 18U;  // MS_PRIVATE
constexpr int kMntDetach = 2;                     // MNT_DETACH
constexpr int kAtRecursive = 0x8000;              // AT_RECURSIVE
constexpr const char* kNewRoot = "/tmp";          // a directory that every host has; covered in our own namespace only

Result<UniqueFd> make_tmpfs(const RootPlan& plan) {
  const UniqueFd fs(static_cast<int>(::syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC)));
  if (!fs) {
    return Error::from_errno("fsopen tmpfs");
  }
  const std::array<std::pair<const char*, std::string>, 3> options{
      {{"size", std::to_string(plan.tmpfs_bytes)}, {"nr_inodes", std::to_string(plan.tmpfs_inodes)}, {"mode", "0700"}}};
  for (const auto& [key, value] : options) {
    if (::syscall(SYS_fsconfig, fs.get(), FSCONFIG_SET_STRING, key, value.c_str(), 0) != 0) {
      return Error::from_errno(std::string("fsconfig tmpfs ") + key);
    }
  }
  if (::syscall(SYS_fsconfig, fs.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0) {
    return Error::from_errno("fsconfig tmpfs create");
  }
  UniqueFd mount_fd(static_cast<int>(
      ::syscall(SYS_fsmount, fs.get(), FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC)));
  if (!mount_fd) {
    return Error::from_errno("fsmount tmpfs");
  }
  return mount_fd;
}

Status attach(int mount_fd, const std::string& target) {
  if (::syscall(SYS_move_mount, mount_fd, "", AT_FDCWD, target.c_str(), MOVE_MOUNT_F_EMPTY_PATH) != 0) {
    return Error::from_errno("move_mount to " + target);
  }
  return base::ok();
}

struct Source {
  std::string path;
  UniqueFd tree;  // a detached, read-only copy of the mount; invalid for a symbolic link
  std::string link_to;
};

Result<Source> take(const std::string& path) {
  struct stat st {};
  if (::lstat(path.c_str(), &st) != 0) {
    return Error::from_errno("lstat " + path);
  }
  Source source;
  source.path = path;
  if (S_ISLNK(st.st_mode)) {  // /lib64 on a merged-/usr system
    std::array<char, 4096> target{};
    const ssize_t n = ::readlink(path.c_str(), target.data(), target.size());
    if (n <= 0) {
      return Error::from_errno("readlink " + path);
    }
    source.link_to.assign(target.data(), static_cast<std::size_t>(n));
    return source;
  }
  source.tree.reset(static_cast<int>(
      ::syscall(SYS_open_tree, AT_FDCWD, path.c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | kAtRecursive)));
  if (!source.tree) {
    return Error::from_errno("open_tree " + path);
  }
  mount_attr attributes{};
  attributes.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
  if (::syscall(SYS_mount_setattr, source.tree.get(), "", AT_EMPTY_PATH | kAtRecursive, &attributes,
                sizeof attributes) != 0) {
    return Error::from_errno("mount_setattr " + path);
  }
  return source;
}

}  // namespace

Status enter_private_root(const RootPlan& plan) {
  if (::mount("", "/", nullptr, kMsRec | kMsPrivate, nullptr) != 0) {
    return Error::from_errno("make mounts private");
  }
  // All sources are taken before the new root covers anything.
  std::vector<Source> sources;
  for (const std::string& path : plan.read_only) {
    sources.push_back(CR_TRY(take(path)));
  }
  const UniqueFd root = CR_TRY(make_tmpfs(plan));
  CR_CHECK(attach(root.get(), kNewRoot));
  const std::string prefix = kNewRoot;
  for (const Source& source : sources) {
    const std::string target = prefix + source.path;
    CR_CHECK(base::make_dirs(target.substr(0, target.rfind('/')), 0755));
    if (!source.tree) {
      if (::symlink(source.link_to.c_str(), target.c_str()) != 0) {
        return Error::from_errno("symlink " + target);
      }
      continue;
    }
    CR_CHECK(base::make_dir(target, 0755));
    CR_CHECK(attach(source.tree.get(), target));
  }
  for (const RootPlan::FileMount& file : plan.files) {
    const std::string target = prefix + file.path;
    (void)CR_TRY(base::open_file(target, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600));
    CR_CHECK(attach(file.mount_fd, target));
  }
  // pivot_root(2), "pivot_root(".", ".")": the old root ends up stacked on the new one and is then detached.
  if (::chdir(kNewRoot) != 0 || ::syscall(SYS_pivot_root, ".", ".") != 0) {
    return Error::from_errno("pivot_root");
  }
  if (::umount2(".", kMntDetach) != 0 || ::chdir("/") != 0) {
    return Error::from_errno("detach the old root");
  }
  return base::ok();
}

Status set_limits(const BoxLimits& limits) {
  const std::array<std::pair<__rlimit_resource, std::uint64_t>, 5> wanted{{{RLIMIT_AS, limits.address_space_bytes},
                                                                           {RLIMIT_CPU, limits.cpu_seconds},
                                                                           {RLIMIT_NOFILE, limits.open_files},
                                                                           {RLIMIT_FSIZE, limits.file_bytes},
                                                                           {RLIMIT_CORE, 0}}};
  for (const auto& [resource, value] : wanted) {
    if (value == 0 && resource != RLIMIT_CORE) {
      continue;
    }
    rlimit now{};
    if (::getrlimit(resource, &now) != 0) {
      return Error::from_errno("getrlimit");
    }
    const rlim_t hard = std::min<rlim_t>(value, now.rlim_max);
    const rlimit set{hard, hard};
    if (::setrlimit(resource, &set) != 0) {
      return Error::from_errno("setrlimit");
    }
  }
  return base::ok();
}

Status keep_capabilities(std::span<const int> keep) {
  constexpr int kMoreThanAnyKernelHas = 64;
  for (int capability = 0; capability < kMoreThanAnyKernelHas; ++capability) {
    if (std::find(keep.begin(), keep.end(), capability) != keep.end()) {
      continue;
    }
    if (::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0) {
      if (errno == EINVAL) {
        break;  // the kernel's last capability was the one before
      }
      return Error::from_errno("drop a capability from the bounding set");
    }
  }
  if (::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0) {
    return Error::from_errno("clear ambient capabilities");
  }
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, 2> data{};
  if (::syscall(SYS_capget, &header, data.data()) != 0) {
    return Error::from_errno("capget");
  }
  std::array<std::uint32_t, 2> kept{};
  for (const int capability : keep) {
    kept[static_cast<std::size_t>(capability) / 32] |= 1U << (static_cast<unsigned>(capability) % 32U);
  }
  for (std::size_t i = 0; i < data.size(); ++i) {
    data[i].permitted &= kept[i];
    data[i].effective = data[i].permitted;
    data[i].inheritable = 0;
  }
  if (::syscall(SYS_capset, &header, data.data()) != 0) {
    return Error::from_errno("capset");
  }
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
    return Error::from_errno("no_new_privs");
  }
  return base::ok();
}

}  // namespace cellrund::host
