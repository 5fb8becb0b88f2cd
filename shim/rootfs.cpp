#include "shim/rootfs.hpp"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>

#include "base/file.hpp"
#include "host/confine.hpp"

#ifndef OPEN_TREE_CLONE
#define OPEN_TREE_CLONE 1
#endif

namespace cellrund::shim {
namespace {

using base::Errc;
using base::Error;
using base::Result;
using base::Status;

constexpr std::uint64_t kLargestImage = 64ULL << 30U;
constexpr std::size_t kMaxMountData = 4095;  // one page (mount(2))
constexpr const char* kImagePath = "/image";

// Options that are flags of mount(2), not data for the file system. The mount is read-only, nosuid, nodev and noexec in
// any case; what would widen that is dropped, because nothing is lost by it: the tree is only read.
bool is_flag(std::string_view option) noexcept {
  constexpr std::array<std::string_view, 16> kFlags{"ro",      "rw",      "suid",     "nosuid",     "dev",      "nodev",
                                                    "exec",    "noexec",  "atime",    "noatime",    "diratime", "nodiratime",
                                                    "relatime", "strictatime", "bind", "rbind"};
  return std::find(kFlags.begin(), kFlags.end(), option) != kFlags.end();
}

// In the child's mount namespace, one over the other, as containerd's mount.All does.
Status mount_all(const std::vector<RootfsMount>& mounts, const std::string& target) {
  constexpr unsigned long kReadOnly = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC;
  for (const RootfsMount& entry : mounts) {
    std::string data;
    for (const std::string& option : entry.options) {
      if (!is_flag(option)) {
        data += (data.empty() ? "" : ",") + option;
      }
    }
    if (data.size() > kMaxMountData) {
      return Error(Errc::kUnimplemented, "mount the root file system: too many layers");
    }
    const bool bind = entry.type == "bind" || std::any_of(entry.options.begin(), entry.options.end(), [](const auto& o) {
                        return o == "bind" || o == "rbind";
                      });
    if (::mount(entry.source.c_str(), target.c_str(), bind ? nullptr : entry.type.c_str(), bind ? static_cast<unsigned long>(MS_BIND) : kReadOnly,
                bind || data.empty() ? nullptr : data.c_str()) != 0) {
      return Error::from_errno("mount the root file system (" + entry.type + ")");
    }
    if (bind && ::mount(nullptr, target.c_str(), nullptr, MS_BIND | MS_REMOUNT | kReadOnly, nullptr) != 0) {
      return Error::from_errno("mount the root file system read-only");
    }
  }
  return base::ok();
}

// Only in the mount namespace in which the file was opened; the child then moves the result into its own.
Result<base::UniqueFd> file_as_mount(int fd) {
  base::UniqueFd tree(static_cast<int>(::syscall(SYS_open_tree, fd, "", OPEN_TREE_CLONE | O_CLOEXEC | AT_EMPTY_PATH)));
  if (!tree) {
    return Error::from_errno("open_tree");
  }
  return tree;
}

Status confine_builder(const std::vector<RootfsMount>& mounts, const std::string& target, int image_mount,
                       const std::string& program) {
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    return Error::from_errno("make mounts private");
  }
  CR_CHECK(mount_all(mounts, target));
  host::RootPlan plan;
  plan.tmpfs_bytes = 1U << 20U;
  plan.tmpfs_inodes = 64;
  for (const char* folder : {"/usr", "/lib", "/lib64"}) {
    if (base::exists(folder)) {
      plan.read_only.emplace_back(folder);
    }
  }
  if (const std::string top = program.substr(0, program.find('/', 1));
      std::find(plan.read_only.begin(), plan.read_only.end(), top) == plan.read_only.end() && top != program) {
    plan.read_only.push_back(top);
  }
  plan.read_only.push_back(target);
  plan.files.push_back({image_mount, kImagePath});
  CR_CHECK(host::enter_private_root(plan));
  CR_CHECK(host::set_limits({.address_space_bytes = 4ULL << 30U,
                             .cpu_seconds = 600,
                             .open_files = 64,
                             .file_bytes = kLargestImage}));
  // Reading every file of every owner is what the builder is for, and all that it may do.
  constexpr std::array<int, 1> kReadAll{CAP_DAC_READ_SEARCH};
  return host::keep_capabilities(kReadAll);
}

[[noreturn]] void run_builder(const std::vector<RootfsMount>& mounts, const std::string& bundle, int image_mount,
                              const Config& config) {
  (void)::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  sigset_t none;
  (void)::sigemptyset(&none);
  (void)::sigprocmask(SIG_SETMASK, &none, nullptr);
  const std::string target = bundle + "/rootfs";
  const Status confined = confine_builder(mounts, target, image_mount, config.mkfs_erofs);
  if (!confined.ok()) {
    (void)base::write_all(STDERR_FILENO, base::as_bytes(confined.error().message() + "\n"));  // the shim's log
    ::_exit(126);
  }
  std::array<const char*, 8> argv{config.mkfs_erofs.c_str(), "-T0", "-U00000000-0000-0000-0000-000000000000", "-d0",
                                  kImagePath, target.c_str(), nullptr, nullptr};
  std::array<char*, 1> env{nullptr};
  // Nothing but the log goes along (close_range(2)).
  (void)::syscall(SYS_close_range, 3U, ~0U, 4U /* CLOSE_RANGE_CLOEXEC */);
  (void)::execve(config.mkfs_erofs.c_str(), const_cast<char* const*>(argv.data()), env.data());
  ::_exit(127);
}

Result<RootfsBuild> start_build(const std::vector<RootfsMount>& mounts, const std::string& bundle, const Config& config) {
  RootfsBuild build;
  // Beside the bundle, on containerd's disk; it goes with the bundle if we die. A file without a name cannot be mounted.
  const std::string folder = base::exists(bundle + "/work") ? bundle + "/work" : bundle;
  build.path = folder + "/rootfs.erofs";
  CR_CHECK(base::remove_file(build.path));
  build.image = CR_TRY(base::open_file(build.path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0600).context("image file"));
  const base::UniqueFd image_mount = CR_TRY(file_as_mount(build.image.get()));
  int pidfd = -1;
  clone_args args{};
  args.flags = CLONE_PIDFD | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC;
  args.pidfd = reinterpret_cast<std::uint64_t>(&pidfd);
  args.exit_signal = SIGCHLD;
  const long pid = ::syscall(SYS_clone3, &args, sizeof(args));
  if (pid < 0) {
    return Error::from_errno("clone3");
  }
  if (pid == 0) {
    run_builder(mounts, bundle, image_mount.get(), config);
  }
  base::UniqueFd owned(pidfd);
  build.builder = base::PidFd(std::move(owned), CR_TRY(base::process_id(static_cast<pid_t>(pid))));
  return build;
}

}  // namespace

Result<base::UniqueFd> open_image(const std::string& path) {
  base::UniqueFd image =
      CR_TRY(base::open_file(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK));
  struct stat st {};
  std::array<std::uint8_t, 4> magic{};
  constexpr std::array<std::uint8_t, 4> kErofs{0xe2, 0xe1, 0xf5, 0xe0};  // EROFS_SUPER_MAGIC_V1, at offset 1024
  if (::fstat(image.get(), &st) != 0 || !S_ISREG(st.st_mode) || st.st_size % 512 != 0 ||
      ::pread(image.get(), magic.data(), magic.size(), 1024) != static_cast<ssize_t>(magic.size()) || magic != kErofs) {
    return Error(Errc::kInvalidArgument, path + ": not an EROFS image in a regular file");
  }
  return image;
}

Result<std::variant<base::UniqueFd, RootfsBuild>> open_rootfs(const std::vector<RootfsMount>& mounts,
                                                              const std::string& bundle, const Config& config) {
  using Out = std::variant<base::UniqueFd, RootfsBuild>;
  if (mounts.empty()) {
    return Error(Errc::kInvalidArgument, "root file system: the request names none");
  }
  const bool any_image = std::any_of(mounts.begin(), mounts.end(), [](const auto& m) { return m.type == "erofs"; });
  if (!any_image) {
    return Out(CR_TRY(start_build(mounts, bundle, config).context("root file system")));
  }
  if (mounts.size() != 1) {
    return Error(Errc::kInvalidArgument, "root file system: an erofs image stands alone");
  }
  return Out(CR_TRY(open_image(mounts.front().source).context("root file system")));
}

Result<base::UniqueFd> finish_build(RootfsBuild build, base::ExitStatus builder) {
  Result<base::UniqueFd> image = base::open_file("/proc/self/fd/" + std::to_string(build.image.get()), O_RDONLY);
  CR_CHECK(base::remove_file(build.path));
  if (builder.signaled || builder.value != 0) {
    return Error(Errc::kUnavailable, "root file system: mkfs.erofs ended with " +
                                         std::string(builder.signaled ? "signal " : "status ") +
                                         std::to_string(builder.value) + ", see the shim's log");
  }
  return image;
}

}  // namespace cellrund::shim
