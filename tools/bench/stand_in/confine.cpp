#include "tools/bench/stand_in/confine.hpp"

#include <seccomp.h>

#include <array>
#include <memory>

namespace cellrund::bench {
namespace {

constexpr std::array kAllowed{
    SCMP_SYS(read),  SCMP_SYS(write),           SCMP_SYS(recvfrom),     SCMP_SYS(sendto),    SCMP_SYS(poll),
    SCMP_SYS(brk),   SCMP_SYS(munmap),          SCMP_SYS(mremap),       SCMP_SYS(madvise),   SCMP_SYS(futex),
    SCMP_SYS(close), SCMP_SYS(restart_syscall), SCMP_SYS(rt_sigreturn), SCMP_SYS(exit_group)};

}  // namespace

base::Status apply_seccomp() {
  const std::unique_ptr<void, void (*)(scmp_filter_ctx)> context(::seccomp_init(SCMP_ACT_KILL_PROCESS),
                                                                 &::seccomp_release);
  if (!context) {
    return base::Error(base::Errc::kResourceExhausted, "seccomp_init");
  }
  int error = 0;
  for (const int call : kAllowed) {
    error = error != 0 ? error : ::seccomp_rule_add(context.get(), SCMP_ACT_ALLOW, call, 0);
  }
  // Memory, but no new code.
  constexpr unsigned kExecutable = 4;  // PROT_EXEC
  error = error != 0 ? error
                     : ::seccomp_rule_add(context.get(), SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
                                          SCMP_A2(SCMP_CMP_MASKED_EQ, kExecutable, 0));
  error = error != 0 ? error : ::seccomp_load(context.get());
  return error == 0 ? base::ok() : base::Status(base::Error::from_errno("apply seccomp filter", -error));
}

}  // namespace cellrund::bench
