// System call allow-lists of the boxed helpers: the only libseccomp include of the helpers.
#include <linux/prctl.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <memory>

#include "host/confine.hpp"

namespace cellrund::host {
namespace {

using base::Errc;
using base::Error;
using base::Status;

// What any C++ program does: memory, its descriptors, its end.
constexpr std::array kBasic{
    SCMP_SYS(read),
    SCMP_SYS(write),
    SCMP_SYS(pread64),
    SCMP_SYS(pwrite64),
    SCMP_SYS(readv),
    SCMP_SYS(writev),
    SCMP_SYS(lseek),
    SCMP_SYS(close),
    SCMP_SYS(fstat),
    SCMP_SYS(newfstatat),
    SCMP_SYS(statx),
    SCMP_SYS(brk),
    SCMP_SYS(munmap),
    SCMP_SYS(mremap),
    SCMP_SYS(madvise),
    SCMP_SYS(futex),
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
    SCMP_SYS(rt_sigaction),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(clock_gettime),
    SCMP_SYS(gettimeofday),
    SCMP_SYS(getrandom),
    SCMP_SYS(fcntl),
    SCMP_SYS(getdents64),
    SCMP_SYS(openat),
    SCMP_SYS(ftruncate),
    SCMP_SYS(restart_syscall),
};

// Building a tree: each call works below a directory descriptor.
constexpr std::array kUnpackerOnly{
    SCMP_SYS(openat2),   SCMP_SYS(mkdirat), SCMP_SYS(unlinkat), SCMP_SYS(linkat),
    SCMP_SYS(symlinkat), SCMP_SYS(fchown),  SCMP_SYS(fchownat), SCMP_SYS(fchmod),
};

// Sockets that it has, and those of socket() below.
constexpr std::array kResolverOnly{
    SCMP_SYS(connect), SCMP_SYS(accept4), SCMP_SYS(recvfrom), SCMP_SYS(sendto), SCMP_SYS(poll), SCMP_SYS(ppoll),
};

// The whole of it: memory, the descriptors that it holds, and its end.
constexpr std::array kCollector{
    SCMP_SYS(read),      SCMP_SYS(write),          SCMP_SYS(pwrite64),       SCMP_SYS(ftruncate),    SCMP_SYS(close),
    SCMP_SYS(poll),      SCMP_SYS(ppoll),          SCMP_SYS(accept4),        SCMP_SYS(brk),          SCMP_SYS(munmap),
    SCMP_SYS(mremap),    SCMP_SYS(madvise),        SCMP_SYS(futex),          SCMP_SYS(exit),         SCMP_SYS(exit_group),
    SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn), SCMP_SYS(clock_gettime), SCMP_SYS(restart_syscall),
};

// The dynamic loader, and what mkfs.erofs 1.5 to 1.8 does while it walks a tree and writes one file.
constexpr std::array kMkfsOnly{
    SCMP_SYS(execve),
    SCMP_SYS(mmap),
    SCMP_SYS(mprotect),
    SCMP_SYS(arch_prctl),
    SCMP_SYS(access),
    SCMP_SYS(faccessat),
    SCMP_SYS(faccessat2),
    SCMP_SYS(set_tid_address),
    SCMP_SYS(set_robust_list),
    SCMP_SYS(rseq),
    SCMP_SYS(prlimit64),
    SCMP_SYS(open),
    SCMP_SYS(stat),
    SCMP_SYS(lstat),
    SCMP_SYS(readlink),
    SCMP_SYS(readlinkat),
    SCMP_SYS(chdir),
    SCMP_SYS(fchdir),
    SCMP_SYS(getcwd),
    SCMP_SYS(fallocate),
    SCMP_SYS(fsync),
    SCMP_SYS(fdatasync),
    SCMP_SYS(ioctl),
    SCMP_SYS(uname),
    SCMP_SYS(getpid),
    SCMP_SYS(getuid),
    SCMP_SYS(geteuid),
    SCMP_SYS(getgid),
    SCMP_SYS(getegid),
    SCMP_SYS(sysinfo),
    SCMP_SYS(unlink),
    SCMP_SYS(copy_file_range),
    SCMP_SYS(sched_getaffinity),
    SCMP_SYS(dup),
    SCMP_SYS(dup2),
    SCMP_SYS(umask),
    SCMP_SYS(getppid),
    SCMP_SYS(gettid),
    SCMP_SYS(statfs),
    SCMP_SYS(fstatfs),
    SCMP_SYS(listxattr),
    SCMP_SYS(llistxattr),
    SCMP_SYS(lgetxattr),
    SCMP_SYS(getxattr),
};

template <std::size_t N>
int allow(scmp_filter_ctx context, const std::array<int, N>& calls) {
  for (const int call : calls) {
    const int error = ::seccomp_rule_add(context, SCMP_ACT_ALLOW, call, 0);
    if (error != 0) {
      return error;
    }
  }
  return 0;
}

}  // namespace

Status apply_seccomp(SeccompProfile profile) {
  // A foreign program may try a call that its other versions do without; ours may not, and dies.
  const std::uint32_t otherwise = profile == SeccompProfile::kMkfs ? SCMP_ACT_ERRNO(ENOSYS) : SCMP_ACT_KILL_PROCESS;
  const std::unique_ptr<void, void (*)(scmp_filter_ctx)> context(::seccomp_init(otherwise), &::seccomp_release);
  if (!context) {
    return Error(Errc::kResourceExhausted, "seccomp_init");
  }
  const bool collector = profile == SeccompProfile::kCollector;
  int error = collector ? allow(context.get(), kCollector) : allow(context.get(), kBasic);
  if (error == 0 && profile == SeccompProfile::kUnpacker) {
    error = allow(context.get(), kUnpackerOnly);
    if (error == 0) {  // only FIFOs can be made by mknodat
      error = ::seccomp_rule_add(context.get(), SCMP_ACT_ALLOW, SCMP_SYS(mknodat), 1,
                                 SCMP_A2(SCMP_CMP_MASKED_EQ, S_IFMT, S_IFIFO));
    }
  }
  if (error == 0 && profile == SeccompProfile::kResolver) {
    error = allow(context.get(), kResolverOnly);
    if (error == 0) {
      error = ::seccomp_rule_add(context.get(), SCMP_ACT_ALLOW, SCMP_SYS(socket), 1, SCMP_A0(SCMP_CMP_EQ, AF_INET));
    }
  }
  // New code cannot be mapped by any of ours.
  for (const int call : {SCMP_SYS(mmap), SCMP_SYS(mprotect)}) {
    if (error == 0 && profile != SeccompProfile::kMkfs) {
      error = ::seccomp_rule_add(context.get(), SCMP_ACT_ALLOW, call, 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    }
  }
  if (error == 0 && profile == SeccompProfile::kMkfs) {
    error = allow(context.get(), kMkfsOnly);
  }
  if (error == 0) {
    error = ::seccomp_load(context.get());
  }
  if (error != 0) {
    return Error::from_errno("apply seccomp filter", -error);
  }
  return base::ok();
}

}  // namespace cellrund::host
