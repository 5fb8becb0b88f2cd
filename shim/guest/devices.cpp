#include "shim/guest/devices.hpp"

#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <string>

#include "shim/guest/paths.hpp"

namespace cellrund::guest {
namespace {

using base::Error;

struct Node {
  const char* path;
  unsigned major;
  unsigned minor;
};

// Numbers: Documentation/admin-guide/devices.txt.
constexpr Node kNodes[] = {{"/dev/null", 1, 3},   {"/dev/zero", 1, 5},    {"/dev/full", 1, 7},
                           {"/dev/random", 1, 8}, {"/dev/urandom", 1, 9}, {"/dev/tty", 5, 0}};

struct Link {
  const char* path;
  const char* target;
};

constexpr Link kLinks[] = {{"/dev/fd", "/proc/self/fd"},
                           {"/dev/stdin", "/proc/self/fd/0"},
                           {"/dev/stdout", "/proc/self/fd/1"},
                           {"/dev/stderr", "/proc/self/fd/2"},
                           {"/dev/ptmx", "pts/ptmx"}};

}  // namespace

base::Status populate_dev() {
  CR_CHECK(ensure_dir("/dev", 0755));
  CR_CHECK(mount_at("dev", "/dev", "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=0755,size=64k"));
  for (const Node& node : kNodes) {
    if (::mknod(node.path, S_IFCHR | 0666, ::makedev(node.major, node.minor)) != 0) {
      return Error::from_errno(std::string("mknod ") + node.path);
    }
  }
  for (const Link& link : kLinks) {
    if (::symlink(link.target, link.path) != 0) {
      return Error::from_errno(std::string("symlink ") + link.path);
    }
  }
  CR_CHECK(ensure_dir("/dev/pts", 0755));
  CR_CHECK(mount_at("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620"));
  CR_CHECK(ensure_dir("/dev/shm", 01777));
  CR_CHECK(mount_at("shm", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=1777,size=16m"));
  // Nothing more is made here: the nodes stay usable, the folder does not.
  return mount_at("", "/dev", "", MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NOEXEC, "");
}

}  // namespace cellrund::guest
