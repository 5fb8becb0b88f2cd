#include "shim/children.hpp"

#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

namespace cellrund::shim {

using base::Error;
using base::Result;

Result<std::unique_ptr<Children>> Children::create(Loop& loop) {
  if (::prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0) {
    return Error::from_errno("prctl PR_SET_CHILD_SUBREAPER");
  }
  sigset_t set;
  (void)::sigemptyset(&set);
  (void)::sigaddset(&set, SIGCHLD);
  if (::sigprocmask(SIG_BLOCK, &set, nullptr) != 0) {
    return Error::from_errno("sigprocmask");
  }
  base::UniqueFd signals(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals) {
    return Error::from_errno("signalfd");
  }
  std::unique_ptr<Children> children(new Children(loop, std::move(signals)));
  CR_CHECK(loop.watch(children->signals_.get(), EPOLLIN, [raw = children.get()](std::uint32_t) { raw->reap(); }));
  return children;
}

Children::~Children() { loop_.unwatch(signals_.get()); }

void Children::on_exit(pid_t pid, Callback callback) { waiting_.insert_or_assign(pid, std::move(callback)); }

void Children::forget(pid_t pid) noexcept { waiting_.erase(pid); }

void Children::reap() {
  signalfd_siginfo ignored{};
  while (::read(signals_.get(), &ignored, sizeof(ignored)) == static_cast<ssize_t>(sizeof(ignored))) {
  }
  // One SIGCHLD may stand for many children (signal(7)): look until there is none.
  for (;;) {
    siginfo_t info{};
    if (::waitid(P_ALL, 0, &info, WEXITED | WNOHANG) != 0 || info.si_pid == 0) {
      return;
    }
    const auto found = waiting_.find(info.si_pid);
    if (found != waiting_.end()) {
      const Callback callback = std::move(found->second);
      waiting_.erase(found);
      callback(base::ExitStatus{info.si_code != CLD_EXITED, info.si_status});
    }
  }
}

}  // namespace cellrund::shim
