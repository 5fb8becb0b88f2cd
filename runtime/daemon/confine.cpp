#include "daemon/confine.hpp"

#include <linux/capability.h>
#include <seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include <array>
#include <cerrno>
#include <memory>

#include "host/confine.hpp"

namespace cellrund::daemon {
namespace {

using base::Error;

// capabilities(7). Everything that is not listed leaves the bounding set, and with it every child.
constexpr std::array<int, 19> kKept{
    CAP_NET_ADMIN, CAP_NET_RAW,                      // namespaces' links, filters, the canary
    CAP_NET_BIND_SERVICE,                            // port 53 in the router namespace, for the resolvers
    CAP_SYS_ADMIN, CAP_SYS_CHROOT,                   // namespaces, mounts, setns, pivot_root of cell-init
    CAP_BPF, CAP_PERFMON,                            // the filter
    CAP_KILL, CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH,   // ending cells, reading their /proc entries
    CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_CHOWN,         // files of other uids in the run folder
    CAP_SETUID, CAP_SETGID, CAP_SETPCAP, CAP_SETFCAP,  // dropping to a cell's identity; mapping id 0 of a box
    CAP_MKNOD,                                       // /dev of the process lane
    CAP_SYS_RESOURCE,                                // limits of cells; absent on some hosts, then simply not held
};

// Administrative calls that neither we nor any child of ours makes.
constexpr std::array<const char*, 34> kDenied{
    "acct",          "add_key",       "adjtimex",     "clock_adjtime",  "clock_settime", "delete_module", "finit_module",
    "init_module",   "io_uring_setup", "ioperm",      "iopl",           "kexec_file_load", "kexec_load",  "keyctl",
    "lookup_dcookie", "mbind",        "migrate_pages", "move_pages",    "nfsservctl",    "perf_event_open",
    "process_vm_readv", "process_vm_writev", "ptrace", "quotactl",      "reboot",        "request_key",   "set_mempolicy",
    "settimeofday",  "swapoff",       "swapon",       "syslog",         "uselib",        "userfaultfd",   "vhangup",
};

}  // namespace

base::Status confine() {
  // A core of this process would hold secrets on their way, and the node's key; its children, cells among them, inherit the limit.
  // 1, not 0: a core_pattern that is a pipe ignores 0 and is given up at 1 (fs/coredump.c); a file of 1 byte is not begun.
  const rlimit none{1, 1};
  if (::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0 || ::setrlimit(RLIMIT_CORE, &none) != 0) {
    return Error::from_errno("forbid core dumps");
  }
  CR_CHECK(host::keep_capabilities(kKept));
  const std::unique_ptr<void, void (*)(scmp_filter_ctx)> filter(::seccomp_init(SCMP_ACT_ALLOW), &::seccomp_release);
  if (!filter) {
    return Error(base::Errc::kResourceExhausted, "seccomp_init");
  }
  // There should be no other thread yet; one that a library has made comes under the filter too, or the load fails.
  if (const int err = ::seccomp_attr_set(filter.get(), SCMP_FLTATR_CTL_TSYNC, 1); err != 0) {
    return Error::from_errno("seccomp_attr_set TSYNC", -err);
  }
  for (const char* name : kDenied) {
    const int number = ::seccomp_syscall_resolve_name(name);
    if (number == __NR_SCMP_ERROR) {
      continue;  // unknown to this libseccomp, so unknown to this architecture
    }
    if (const int err = ::seccomp_rule_add(filter.get(), SCMP_ACT_ERRNO(EPERM), number, 0); err != 0) {
      return Error::from_errno(std::string("seccomp_rule_add ") + name, -err);
    }
  }
  if (const int err = ::seccomp_load(filter.get()); err != 0) {
    return Error::from_errno("seccomp_load", -err);
  }
  return base::ok();
}

}  // namespace cellrund::daemon
