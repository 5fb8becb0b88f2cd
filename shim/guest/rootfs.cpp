#include "shim/guest/rootfs.hpp"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/file.hpp"
#include "shim/guest/devices.hpp"
#include "shim/guest/image_mount.hpp"
#include "shim/guest/outputs.hpp"
#include "shim/guest/inputs.hpp"
#include "shim/guest/paths.hpp"
#include "shim/wire/secrets.hpp"

namespace cellrund::guest {
namespace {

using base::Error;
using wire::Workload;

// Where the pieces are put together. It exists in every root, and what it hides is hidden in this namespace alone.
constexpr const char* kStage = "/run";
constexpr std::uint64_t kDefaultUpperBytes = 64ULL << 20U;
// A file system on tmpfs may hold as many files as pages: the kernel's own memory for inodes then stays a fraction of its size.
constexpr std::uint64_t kBytesPerInode = 4096;
constexpr std::uint64_t kMinInodes = 64;
constexpr unsigned long kNoFiles = MS_NOSUID | MS_NODEV | MS_NOEXEC;

// Of the host's or guest's kernel, of no use to a workload; the list is that of runc and containerd, and a little more.
constexpr const char* kMasked[] = {"/proc/acpi",       "/proc/asound",    "/proc/interrupts", "/proc/kallsyms", "/proc/kcore",
                                   "/proc/keys",       "/proc/key-users", "/proc/kmsg",       "/proc/kpagecount", "/proc/latency_stats",
                                   "/proc/modules",    "/proc/sched_debug", "/proc/scsi",     "/proc/timer_list", "/proc/vmallocinfo",
                                   "/sys/firmware",    "/sys/kernel/debug", "/sys/kernel/security", "/sys/kernel/tracing",
                                   "/sys/fs/bpf",      "/sys/devices/virtual/powercap"};
constexpr const char* kReadOnly[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"};

std::string tmpfs_bounds(std::uint64_t bytes) {
  return "size=" + std::to_string(bytes) + ",nr_inodes=" + std::to_string(std::max(kMinInodes, bytes / kBytesPerInode));
}

base::Status stage_root(const Workload& workload) {
  // Nothing that is mounted here may travel to another namespace, nor the other way.
  CR_CHECK(mount_at("", "/", "", MS_REC | MS_PRIVATE, ""));
  const std::uint64_t upper_bytes = workload.writable_root_bytes != 0 ? workload.writable_root_bytes : kDefaultUpperBytes;
  CR_CHECK(mount_at("stage", kStage, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755," + tmpfs_bounds(upper_bytes)));
  for (const char* name : {"/run/lower", "/run/upper", "/run/work", "/run/root"}) {
    CR_CHECK(base::make_dir(name, 0755));
  }
  CR_CHECK(mount_image({workload.rootfs_device, workload.process ? workload.process->rootfs_fd : -1}, "/run/lower"));
  // The overlay stands even below a read-only root: it gives mount points that the image lacks.
  const unsigned long suid = workload.no_new_privileges ? MS_NOSUID : 0;
  return mount_at("root", "/run/root", "overlay", MS_NODEV | suid,
                  "lowerdir=/run/lower,upperdir=/run/upper,workdir=/run/work");
}

// pivot_root(2), "pivot_root(".", ".")": the old root ends up stacked on the new one and is detached from there.
base::Status enter_root() {
  if (::chdir("/run/root") != 0) {
    return Error::from_errno("chdir to the new root");
  }
  if (::syscall(SYS_pivot_root, ".", ".") != 0) {
    return Error::from_errno("pivot_root");
  }
  if (::umount2(".", MNT_DETACH) != 0) {
    return Error::from_errno("detach the old root");
  }
  if (::chdir("/") != 0) {
    return Error::from_errno("chdir to /");
  }
  return base::ok();
}

base::Status mount_kernel_filesystems() {
  CR_CHECK(ensure_dir("/proc", 0555));
  CR_CHECK(mount_at("proc", "/proc", "proc", kNoFiles, ""));
  CR_CHECK(ensure_dir("/sys", 0555));
  CR_CHECK(mount_at("sysfs", "/sys", "sysfs", kNoFiles | MS_RDONLY, ""));
  return populate_dev();
}

base::Status mask_paths() {
  for (const char* path : kMasked) {
    struct stat info {};
    if (::lstat(path, &info) != 0) {
      continue;  // this kernel does not have it
    }
    if (S_ISDIR(info.st_mode)) {
      CR_CHECK(mount_at("mask", path, "tmpfs", kNoFiles | MS_RDONLY, "size=4k,nr_inodes=2,mode=0555"));
    } else {
      CR_CHECK(mount_at("/dev/null", path, "", MS_BIND, ""));
    }
  }
  for (const char* path : kReadOnly) {
    if (!base::exists(path)) {
      continue;
    }
    CR_CHECK(mount_at(path, path, "", MS_BIND | MS_REC, ""));
    CR_CHECK(mount_at("", path, "", MS_BIND | MS_REMOUNT | MS_RDONLY | kNoFiles, ""));
  }
  return base::ok();
}

base::Status mount_tmpfs(const Workload& workload) {
  for (const wire::TmpfsMount& tmpfs : workload.tmpfs) {
    char mode[8];
    (void)std::snprintf(mode, sizeof(mode), "%o", tmpfs.mode);
    CR_CHECK(ensure_dir(tmpfs.path, 0755));
    const std::string options = tmpfs_bounds(tmpfs.size_bytes) + ",mode=" + mode;
    if (tmpfs.path != wire::kSecretsPath) {
      CR_CHECK(mount_at("tmpfs", tmpfs.path, "tmpfs", MS_NOSUID | MS_NODEV, options));
      continue;
    }
    // noswap is Linux 6.4's (tmpfs(5)); an older kernel calls it invalid.
    base::Status mounted = mount_at("secrets", tmpfs.path, "tmpfs", kNoFiles, options + ",noswap");
    if (!mounted.ok() && mounted.error().os_errno() == EINVAL) {
      mounted = mount_at("secrets", tmpfs.path, "tmpfs", kNoFiles, options);
    }
    CR_CHECK(std::move(mounted));
  }
  return base::ok();
}

}  // namespace

base::Status build_root(const Workload& workload, int outputs_fd) {
  (void)::umask(0);  // every mode below is meant as written
  CR_CHECK(stage_root(workload));
  const StagedInputs inputs = CR_TRY(stage_inputs(workload, kStage));
  CR_CHECK(enter_root());
  CR_CHECK(mount_kernel_filesystems());
  CR_CHECK(mask_paths());
  CR_CHECK(mount_tmpfs(workload));
  if (outputs_fd >= 0) {
    CR_CHECK(attach_outputs(outputs_fd));
  }
  CR_CHECK(attach_inputs(inputs));
  for (const wire::FileEntry& file : workload.files) {
    CR_CHECK(place_file(file));
  }
  CR_CHECK(ensure_dir(workload.cwd, 0755));
  if (workload.read_only_root) {
    const unsigned long suid = workload.no_new_privileges ? MS_NOSUID : 0;
    CR_CHECK(mount_at("", "/", "", MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NODEV | suid, ""));
  }
  return base::ok();
}

bool storage_is_full(const Workload& workload) noexcept {
  const auto full = [](const char* path) {
    struct statvfs fs {};
    return ::statvfs(path, &fs) == 0 && (fs.f_bavail == 0 || fs.f_favail == 0);
  };
  return (!workload.read_only_root && full("/")) || (workload.outputs.has_value() && full("/outputs")) ||
         (workload.inputs.has_value() && workload.inputs->workspace_bytes != 0 && full("/workspace")) ||
         std::any_of(workload.tmpfs.begin(), workload.tmpfs.end(), [&](const wire::TmpfsMount& at) { return full(at.path.c_str()); });
}

}  // namespace cellrund::guest
