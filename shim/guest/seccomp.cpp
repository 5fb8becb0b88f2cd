#include "shim/guest/seccomp.hpp"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <utility>
#include <vector>

namespace cellrund::guest {
namespace {

// EPERM. Grouped by what they administer.
constexpr long kDenied[] = {
    // mounts and roots
    SYS_mount, SYS_umount2, SYS_pivot_root, SYS_move_mount, SYS_open_tree, SYS_fsopen, SYS_fsconfig,
    SYS_fsmount, SYS_fspick, SYS_mount_setattr, SYS_swapon, SYS_swapoff, SYS_quotactl, SYS_quotactl_fd,
    SYS_open_by_handle_at, SYS_name_to_handle_at, SYS_fanotify_init,
    // namespaces and other processes
    SYS_setns, SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_pidfd_getfd, SYS_kcmp,
    // the kernel itself
    SYS_bpf, SYS_perf_event_open, SYS_init_module, SYS_finit_module, SYS_delete_module, SYS_kexec_load,
    SYS_kexec_file_load, SYS_reboot, SYS_syslog, SYS_acct, SYS_iopl, SYS_ioperm, SYS_userfaultfd, SYS_lookup_dcookie,
    SYS_modify_ldt, SYS_vhangup,
    // keys are not namespaced
    SYS_add_key, SYS_request_key, SYS_keyctl,
    // asynchronous calls would go around this filter
    SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register,
    // clocks and names
    SYS_settimeofday, SYS_clock_settime, SYS_clock_adjtime, SYS_adjtimex, SYS_sethostname, SYS_setdomainname,
};

constexpr unsigned kNewNamespaces = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER |
                                    CLONE_NEWPID | CLONE_NEWNET | 0x80U /* CLONE_NEWTIME, of unshare(2) only */;
// The same without the bit that means a part of the exit signal to clone(2).
constexpr unsigned kNewNamespacesClone = kNewNamespaces & ~0xFFU;
constexpr unsigned kX32Bit = 0x40000000;

class Program {
 public:
  void load(std::size_t offset) { emit(BPF_LD | BPF_W | BPF_ABS, static_cast<unsigned>(offset)); }
  void load_number() { load(offsetof(seccomp_data, nr)); }
  // The low half of an argument (little endian).
  void load_argument(unsigned index) { load(offsetof(seccomp_data, args) + 8 * index); }
  void give(unsigned action) { emit(BPF_RET | BPF_K, action); }
  void deny(int error) { give(SECCOMP_RET_ERRNO | static_cast<unsigned>(error)); }
  // The next `count` instructions run only if the comparison holds.
  void if_equal(unsigned value, unsigned char count = 1) { emit(BPF_JMP | BPF_JEQ | BPF_K, value, 0, count); }
  void if_not_equal(unsigned value) { emit(BPF_JMP | BPF_JEQ | BPF_K, value, 1, 0); }
  void if_any_bit(unsigned mask) { emit(BPF_JMP | BPF_JSET | BPF_K, mask, 0, 1); }
  std::vector<sock_filter>& instructions() { return instructions_; }

 private:
  void emit(int code, unsigned k, unsigned char jt = 0, unsigned char jf = 0) {
    instructions_.push_back(sock_filter{static_cast<unsigned short>(code), jt, jf, k});
  }
  std::vector<sock_filter> instructions_;
};

Program make_program() {
  Program p;
  p.load(offsetof(seccomp_data, arch));
  p.if_not_equal(AUDIT_ARCH_X86_64);  // i386 calls have other numbers
  p.deny(ENOSYS);
  p.load_number();
  p.if_any_bit(kX32Bit);
  p.deny(ENOSYS);
  for (const long number : kDenied) {
    p.if_equal(static_cast<unsigned>(number));
    p.deny(EPERM);
  }
  // Its flags lie in memory, where a filter cannot look; libc falls back to clone.
  p.if_equal(SYS_clone3);
  p.deny(ENOSYS);
  for (const auto& [number, mask] : {std::pair<long, unsigned>{SYS_clone, kNewNamespacesClone}, {SYS_unshare, kNewNamespaces}}) {
    p.if_equal(static_cast<unsigned>(number), 4);
    p.load_argument(0);
    p.if_any_bit(mask);
    p.deny(EPERM);
    p.give(SECCOMP_RET_ALLOW);
  }
  // The families that a sandboxed program has a use for; the others are rarely audited code.
  p.if_equal(SYS_socket, 10);
  p.load_argument(0);
  for (const int family : {AF_UNIX, AF_INET, AF_INET6, AF_NETLINK}) {
    p.if_equal(static_cast<unsigned>(family));
    p.give(SECCOMP_RET_ALLOW);
  }
  p.deny(EAFNOSUPPORT);
  p.give(SECCOMP_RET_ALLOW);
  return p;
}

}  // namespace

base::Status install_seccomp() {
  Program program = make_program();
  sock_fprog filter{static_cast<unsigned short>(program.instructions().size()), program.instructions().data()};
  if (::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter) != 0) {
    return base::Error::from_errno("install seccomp filter");
  }
  return base::ok();
}

}  // namespace cellrund::guest
