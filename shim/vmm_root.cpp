#include "shim/vmm_root.hpp"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <vector>

#include "base/file.hpp"

namespace cellrund::shim {
namespace {

using base::Error;
using base::Result;
using base::Status;

// Any folder that exists on every host does: the tmpfs lies over it in this mount namespace only.
constexpr const char* kStage = "/tmp";

Status mount_at(const char* what, const char* source, const std::string& target, const char* type, unsigned long flags,
                const char* data) {
  if (::mount(source, target.c_str(), type, flags, data) != 0) {
    return Error::from_errno(std::string("mount ") + what);
  }
  return base::ok();
}

// A folder of the host at the same path, read-only; a symbolic link (/lib → usr/lib) as the same link.
Status bind_program_folder(const std::string& path) {
  struct stat st {};
  if (::lstat(path.c_str(), &st) != 0) {
    return errno == ENOENT ? base::ok() : Status(Error::from_errno("lstat " + path));
  }
  const std::string target = kStage + path;
  if (S_ISLNK(st.st_mode)) {
    std::array<char, 256> link{};
    const ssize_t n = ::readlink(path.c_str(), link.data(), link.size() - 1);
    if (n <= 0 || (::symlink(link.data(), target.c_str()) != 0 && errno != EEXIST)) {
      return Error::from_errno("symlink " + path);
    }
    return base::ok();
  }
  if (base::exists(target)) {
    return base::ok();
  }
  CR_CHECK(base::make_dir(target, 0755));
  CR_CHECK(mount_at("program folder", path.c_str(), target, nullptr, MS_BIND | MS_REC, nullptr));
  // A bind mount takes no other flag at first (mount(2), "Creating a bind mount").
  return mount_at("program folder read-only", nullptr, target, nullptr,
                  MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV, nullptr);
}

Status make_node(const char* name, mode_t mode, unsigned major_number, unsigned minor_number, std::uint32_t owner) {
  const std::string path = std::string(kStage) + "/dev/" + name;
  if (::mknod(path.c_str(), S_IFCHR | mode, makedev(major_number, minor_number)) != 0 ||
      ::chmod(path.c_str(), mode) != 0 || ::chown(path.c_str(), owner, owner) != 0) {
    return Error::from_errno("make " + path);
  }
  return base::ok();
}

Status make_dev(bool kvm, std::uint32_t uid) {
  const std::string dev = std::string(kStage) + "/dev";
  CR_CHECK(base::make_dir(dev, 0755));
  CR_CHECK(make_node("null", 0666, 1, 3, 0));
  CR_CHECK(make_node("zero", 0666, 1, 5, 0));
  CR_CHECK(make_node("random", 0444, 1, 8, 0));
  CR_CHECK(make_node("urandom", 0444, 1, 9, 0));
  if (kvm) {
    // The host's node may be root's alone; what it stands for is looked up, not assumed.
    struct stat st {};
    if (::stat("/dev/kvm", &st) != 0 || !S_ISCHR(st.st_mode)) {
      return Error::from_errno("stat /dev/kvm");
    }
    CR_CHECK(make_node("kvm", 0600, major(st.st_rdev), minor(st.st_rdev), uid));
  }
  if (::symlink("/proc/self/fd", (dev + "/fd").c_str()) != 0) {
    return Error::from_errno("symlink /dev/fd");
  }
  return base::ok();
}

}  // namespace

Status enter_vmm_root(const std::string& program, bool kvm, std::uint32_t uid) {
  (void)::umask(0022);
  // Nothing that happens here may travel back to the host's namespace (mount_namespaces(7), "Shared subtrees").
  CR_CHECK(mount_at("/ private", nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr));
  // Device nodes must work in it, so it cannot be nodev; it is made read-only below.
  CR_CHECK(mount_at("root", "vmm", kStage, "tmpfs", MS_NOSUID | MS_NOEXEC, "size=1m,nr_inodes=64,mode=0755"));
  std::vector<std::string> folders{"/usr", "/lib", "/lib64", "/bin"};
  folders.push_back(program.substr(0, program.find('/', 1)));
  for (const std::string& folder : folders) {
    CR_CHECK(bind_program_folder(folder));
  }
  if (base::exists("/etc/ld.so.cache")) {
    const std::string cache = std::string(kStage) + "/etc/ld.so.cache";
    CR_CHECK(base::make_dir(std::string(kStage) + "/etc", 0755));
    (void)CR_TRY(base::open_file(cache, O_WRONLY | O_CREAT, 0644));
    CR_CHECK(mount_at("loader cache", "/etc/ld.so.cache", cache, nullptr, MS_BIND, nullptr));
    CR_CHECK(mount_at("loader cache read-only", nullptr, cache, nullptr,
                      MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr));
  }
  CR_CHECK(make_dev(kvm, uid));
  const std::string proc = std::string(kStage) + "/proc";
  CR_CHECK(base::make_dir(proc, 0555));
  CR_CHECK(mount_at("proc", "proc", proc, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "subset=pid,hidepid=2"));
  CR_CHECK(mount_at("root read-only", nullptr, kStage, nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NOEXEC,
                    nullptr));
  // pivot_root(2), "pivot_root(".", ".")": the old root ends up over the new one and is detached from there.
  if (::chdir(kStage) != 0) {
    return Error::from_errno("chdir to the new root");
  }
  if (::syscall(SYS_pivot_root, ".", ".") != 0) {
    return Error::from_errno("pivot_root");
  }
  if (::umount2(".", MNT_DETACH) != 0) {
    return Error::from_errno("detach the old root");
  }
  if (::chdir("/") != 0) {
    return Error::from_errno("chdir /");
  }
  return base::ok();
}

}  // namespace cellrund::shim
