#include "shim/confinement.hpp"

#include <linux/capability.h>
#include <seccomp.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <memory>
#include <string>

#include "host/confine.hpp"

namespace cellrund::shim {
namespace {

using base::Error;
using base::Status;

// The VMM is another user's; everything else that the shim still touches is a file of root's, or a descriptor that it has.
constexpr std::array<int, 1> kKept{CAP_KILL};

constexpr std::array<const char*, 73> kDenied{
    // another process
    "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "pidfd_getfd", "kcmp",
    // identities and namespaces
    "setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setfsuid", "setfsgid", "setgroups", "capset",
    "unshare", "setns", "chroot", "pivot_root",
    // mounts and file systems
    "mount", "umount2", "open_tree", "move_mount", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr", "quotactl",
    "swapon", "swapoff", "name_to_handle_at", "open_by_handle_at", "mknod", "mknodat", "chown", "fchown", "lchown", "fchownat",
    // the kernel
    "bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register", "init_module",
    "finit_module", "delete_module", "kexec_load", "kexec_file_load", "reboot", "syslog", "acct", "iopl", "ioperm", "add_key",
    "request_key", "keyctl", "settimeofday", "clock_settime", "adjtimex", "clock_adjtime", "sethostname", "setdomainname",
    "vhangup", "personality", "modify_ldt", "seccomp", "fanotify_init", "lookup_dcookie", "nfsservctl", "uselib",
};
constexpr std::array<const char*, 6> kDeniedWithoutCommands{"execve", "execveat", "fork", "vfork", "clone", "clone3"};

Status deny(scmp_filter_ctx filter, const char* name) {
  const int number = ::seccomp_syscall_resolve_name(name);
  if (number == __NR_SCMP_ERROR) {
    return base::ok();  // unknown to this libseccomp, so unknown to this architecture
  }
  if (const int err = ::seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), number, 0); err != 0) {
    return Error::from_errno(std::string("seccomp_rule_add ") + name, -err);
  }
  return base::ok();
}

}  // namespace

Status confine_shim(Events events) {
  CR_CHECK(host::keep_capabilities(kKept).context("confine the shim"));
  const std::unique_ptr<void, void (*)(scmp_filter_ctx)> filter(::seccomp_init(SCMP_ACT_ALLOW), &::seccomp_release);
  if (!filter) {
    return Error(base::Errc::kResourceExhausted, "seccomp_init");
  }
  for (const char* name : kDenied) {
    CR_CHECK(deny(filter.get(), name));
  }
  if (events == Events::kSocket) {
    for (const char* name : kDeniedWithoutCommands) {
      CR_CHECK(deny(filter.get(), name));
    }
    // containerd and the streams of its clients are all that it speaks to.
    if (const int err = ::seccomp_rule_add(filter.get(), SCMP_ACT_ERRNO(EPERM), SCMP_SYS(socket), 1, SCMP_A0(SCMP_CMP_NE, AF_UNIX));
        err != 0) {
      return Error::from_errno("seccomp_rule_add socket", -err);
    }
  }
  if (const int err = ::seccomp_load(filter.get()); err != 0) {
    return Error::from_errno("seccomp_load", -err);
  }
  return base::ok();
}

}  // namespace cellrund::shim
