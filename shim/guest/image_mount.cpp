#include "shim/guest/image_mount.hpp"

#include <fcntl.h>
#include <linux/loop.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>

#include "base/file.hpp"
#include "shim/guest/paths.hpp"

namespace cellrund::guest {
namespace {

using base::Error;

constexpr unsigned long kFlags = MS_RDONLY | MS_NODEV;

// Linux 6.12 mounts EROFS straight from a regular file (CONFIG_EROFS_FS_BACKED_BY_FILE). False: this kernel, or this
// file system under our overlay, cannot (the kernel stacks at most two file systems, FILESYSTEM_MAX_STACK_DEPTH).
base::Result<bool> mount_from_file(int image_fd, const std::string& target) {
  struct statfs info {};
  if (::fstatfs(image_fd, &info) != 0) {
    return Error::from_errno("fstatfs image");
  }
  if (info.f_type == OVERLAYFS_SUPER_MAGIC) {
    return false;
  }
  const std::string source = "/proc/self/fd/" + std::to_string(image_fd);
  if (::mount(source.c_str(), target.c_str(), "erofs", kFlags, nullptr) == 0) {
    return true;
  }
  if (errno == ENOTBLK || errno == EINVAL) {
    return false;
  }
  return Error::from_errno("mount erofs from file");
}

// loop(4). Another process may take the free number first; then ask again.
base::Result<base::UniqueFd> attach_loop(int image_fd, std::string& device) {
  const base::UniqueFd control = CR_TRY(base::open_file("/dev/loop-control", O_RDWR));
  constexpr int kAttempts = 64;
  for (int i = 0; i < kAttempts; ++i) {
    const int number = ::ioctl(control.get(), LOOP_CTL_GET_FREE);
    if (number < 0) {
      return Error::from_errno("find a free loop device");
    }
    device = "/dev/loop" + std::to_string(number);
    base::UniqueFd loop = CR_TRY(base::open_file(device, O_RDONLY));
    loop_config config{};
    config.fd = static_cast<unsigned>(image_fd);
    config.info.lo_flags = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR;
    if (::ioctl(loop.get(), LOOP_CONFIGURE, &config) == 0) {
      return loop;
    }
    if (errno != EBUSY) {
      return Error::from_errno("configure " + device);
    }
  }
  return Error(base::Errc::kUnavailable, "find a free loop device: always taken by others");
}

}  // namespace

base::Status mount_image(const ImageSource& source, const std::string& target) {
  if (source.fd < 0) {
    return mount_at(source.device, target, "erofs", kFlags, "");
  }
  const base::UniqueFd image(source.fd);
  if (CR_TRY(mount_from_file(image.get(), target))) {
    return base::ok();
  }
  std::string device;
  const base::UniqueFd loop = CR_TRY(attach_loop(image.get(), device));
  return mount_at(device, target, "erofs", kFlags, "");
}

}  // namespace cellrund::guest
