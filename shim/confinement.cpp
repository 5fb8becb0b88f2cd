#include "shim/confinement.hpp"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <linux/sockios.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <initializer_list>
#include <memory>
#include <string>

#include "base/file.hpp"
#include "host/confine.hpp"

namespace cellrund::shim {
namespace {

using base::Error;
using base::Result;
using base::Status;

constexpr std::array<const char*, 73> kDeniedToBoth{
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
constexpr std::array<const char*, 6> kCommandsOnly{"execve", "execveat", "fork", "vfork", "clone", "clone3"};
// uid 0 without capabilities still owns root's files, and may signal, limit and slow down root's processes.
constexpr auto kDeniedToShim = std::to_array<const char*>({
    "socket", "socketpair", "connect", "bind", "listen",
    // another process
    "kill", "tkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_open", "pidfd_send_signal", "process_mrelease", "setpriority",
    "sched_setparam", "sched_setscheduler", "sched_setattr", "sched_setaffinity", "ioprio_set", "migrate_pages", "move_pages",
    // files
    "openat2", "creat", "truncate", "rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir", "mkdir", "mkdirat", "link",
    "linkat", "symlink", "symlinkat", "chmod", "fchmod", "fchmodat", "fchmodat2", "setxattr", "lsetxattr", "fsetxattr", "setxattrat",
    "removexattr", "lremovexattr", "fremovexattr", "removexattrat", "utime", "utimes", "futimesat", "utimensat", "file_setattr",
    // System V's and POSIX's objects of other processes of root's
    "shmget", "shmat", "shmctl", "semget", "semop", "semtimedop", "semctl", "msgget", "msgsnd", "msgrcv", "msgctl", "mq_open",
    "mq_unlink", "mq_timedsend",
});

class Filter {
 public:
  Filter() : filter_(::seccomp_init(SCMP_ACT_ALLOW), &::seccomp_release) {}

  template <typename Names>
  Status deny(const Names& names) {
    for (const char* name : names) {
      CR_CHECK(deny_if(name, {}));
    }
    return base::ok();
  }
  // When every one of the comparisons holds.
  Status deny_if(const char* name, std::initializer_list<scmp_arg_cmp> comparisons) {
    const int number = ::seccomp_syscall_resolve_name(name);
    if (number == __NR_SCMP_ERROR) {
      return base::ok();  // unknown to this libseccomp, so unknown to this architecture
    }
    if (const int err = ::seccomp_rule_add_array(filter_.get(), SCMP_ACT_ERRNO(EPERM), number,
                                                 static_cast<unsigned>(comparisons.size()), comparisons.begin());
        err != 0) {
      return Error::from_errno(std::string("seccomp_rule_add ") + name, -err);
    }
    return base::ok();
  }
  Status load() {
    if (const int err = ::seccomp_load(filter_.get()); err != 0) {
      return Error::from_errno("seccomp_load", -err);
    }
    return base::ok();
  }

 private:
  std::unique_ptr<void, void (*)(scmp_filter_ctx)> filter_;
};

// The kernel reads these arguments as 32 bits wide.
scmp_arg_cmp has_bits(unsigned arg, scmp_datum_t mask, scmp_datum_t bits) {
  return {arg, SCMP_CMP_MASKED_EQ, mask, bits};
}
scmp_arg_cmp is(unsigned arg, scmp_datum_t value) { return has_bits(arg, 0xffffffffU, value); }

// Kernels are newer than headers: landlock(7), "The Landlock ABI".
struct LandlockRules {
  std::uint64_t fs = 0, net = 0, scoped = 0;
};
constexpr std::uint64_t kTruncate = 1U << 14U, kDeviceIoctl = 1U << 15U;
constexpr std::uint64_t kTcp = 3, kAbstractSocketsAndSignals = 3;
constexpr std::size_t kBytesOfOne = 8;  // the fields came one by one

Result<int> landlock(std::span<const std::string> readable) {
  const auto version = static_cast<int>(::syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION));
  if (version < 0) {
    return errno == ENOSYS || errno == EOPNOTSUPP ? Result<int>(0) : Error::from_errno("landlock_create_ruleset");
  }
  LandlockRules rules;
  rules.fs = (std::uint64_t{LANDLOCK_ACCESS_FS_MAKE_SYM} << 1U) - 1;
  rules.fs |= version >= 2 ? std::uint64_t{LANDLOCK_ACCESS_FS_REFER} : 0;
  rules.fs |= version >= 3 ? kTruncate : 0;
  rules.fs |= version >= 5 ? kDeviceIoctl : 0;
  rules.net = version >= 4 ? kTcp : 0;
  rules.scoped = version >= 6 ? kAbstractSocketsAndSignals : 0;
  const std::size_t size = kBytesOfOne * (version >= 6 ? 3U : version >= 4 ? 2U : 1U);
  const base::UniqueFd ruleset(static_cast<int>(::syscall(SYS_landlock_create_ruleset, &rules, size, 0)));
  if (!ruleset) {
    return Error::from_errno("landlock_create_ruleset");
  }
  for (const std::string& folder : readable) {
    const base::UniqueFd below = CR_TRY(base::open_file(folder, O_PATH | O_DIRECTORY));
    const landlock_path_beneath_attr rule{LANDLOCK_ACCESS_FS_READ_FILE, below.get()};
    if (::syscall(SYS_landlock_add_rule, ruleset.get(), LANDLOCK_RULE_PATH_BENEATH, &rule, 0) != 0) {
      return Error::from_errno("landlock_add_rule " + folder);
    }
  }
  if (::syscall(SYS_landlock_restrict_self, ruleset.get(), 0) != 0) {
    return Error::from_errno("landlock_restrict_self");
  }
  return version;
}

Status deny_all_to_shim() {
  Filter filter;
  CR_CHECK(filter.deny(kDeniedToBoth));
  CR_CHECK(filter.deny(kCommandsOnly));
  CR_CHECK(filter.deny(kDeniedToShim));
  // abort(3) stays.
  CR_CHECK(filter.deny_if("tgkill", {{0, SCMP_CMP_NE, static_cast<scmp_datum_t>(::getpid()), 0}}));
  CR_CHECK(filter.deny_if("prlimit64", {{0, SCMP_CMP_NE, 0, 0}}));
  // Signals by way of a descriptor's owner (fcntl(2)), and leases, which hold up others.
  for (const int command : {F_SETOWN, F_SETOWN_EX, F_SETSIG, F_SETLEASE}) {
    CR_CHECK(filter.deny_if("fcntl", {is(1, static_cast<scmp_datum_t>(command))}));
  }
  for (const unsigned command : {FIOSETOWN, SIOCSPGRP, TIOCSTI}) {
    CR_CHECK(filter.deny_if("ioctl", {is(1, command)}));
  }
  for (const auto& [name, flags] : {std::pair{"open", 1U}, std::pair{"openat", 2U}}) {
    for (const auto& [mask, bits] : {std::pair{O_ACCMODE, O_WRONLY}, std::pair{O_ACCMODE, O_RDWR}, std::pair{O_ACCMODE, O_ACCMODE},
                                     std::pair{O_CREAT, O_CREAT}, std::pair{O_TRUNC, O_TRUNC}}) {
      CR_CHECK(filter.deny_if(name, {has_bits(flags, static_cast<scmp_datum_t>(mask), static_cast<scmp_datum_t>(bits))}));
    }
  }
  return filter.load();
}

}  // namespace

Result<int> confine_shim(std::span<const std::string> readable) {
  CR_CHECK(host::keep_capabilities({}).context("confine the shim"));
  const int version = CR_TRY(landlock(readable).context("confine the shim"));
  CR_CHECK(deny_all_to_shim().context("confine the shim"));
  return version;
}

Status confine_broker(Events events) {
  // The VMM is another user's. Clients' FIFOs lie below /run/containerd, which containerd's own shims make with mode 0600: a
  // folder that nobody may walk through by being its owner.
  constexpr std::array<int, 2> kKept{CAP_KILL, CAP_DAC_READ_SEARCH};
  CR_CHECK(host::keep_capabilities(kKept).context("confine the broker"));
  Filter filter;
  CR_CHECK(filter.deny(kDeniedToBoth));
  if (events == Events::kSocket) {
    CR_CHECK(filter.deny(kCommandsOnly));
    // containerd is all that it speaks to.
    CR_CHECK(filter.deny_if("socket", {{0, SCMP_CMP_NE, AF_UNIX, 0}}));
  }
  return filter.load().context("confine the broker");
}

}  // namespace cellrund::shim
