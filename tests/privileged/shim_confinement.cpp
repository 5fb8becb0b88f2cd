// What confine_shim() leaves to a process, tried in a child that has done it.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <functional>

#include "host/process_facts.hpp"
#include "shim/confinement.hpp"

using namespace cellrund;

namespace {

// 0 when `probe` returned true in a confined child; 2: not confined; 1 otherwise.
int confined(shim::Events events, const std::function<bool()>& probe) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    if (!shim::confine_shim(events).ok()) {
      ::_exit(2);
    }
    ::_exit(probe() ? 0 : 1);
  }
  int status = 0;
  if (pid < 0 || ::waitpid(pid, &status, 0) != pid || !WIFEXITED(status)) {
    return 3;
  }
  return WEXITSTATUS(status);
}

bool denied(long result) { return result < 0 && errno == EPERM; }

}  // namespace

TEST_CASE("CAP_KILL is all that stays, with no_new_privs and a filter") {
  CHECK(confined(shim::Events::kSocket, [] {
    const auto status = base::read_file("/proc/self/status", 65536);
    const auto found = status.ok() ? host::parse_credentials(*status) : base::Result<host::Credentials>(status.error().clone());
    constexpr std::uint64_t kKill = 1U << 5U;
    return found.ok() && found->no_new_privs && found->seccomp == 2 && found->capabilities[0] == 0 &&
           found->capabilities[1] == kKill && found->capabilities[2] == kKill && found->capabilities[3] == kKill &&
           found->capabilities[4] == 0;
  }) == 0);
}

TEST_CASE("what leads to other processes, namespaces, mounts, the kernel or the network is denied") {
  const std::vector<std::pair<const char*, std::function<bool()>>> probes{
      {"ptrace", [] { return denied(::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr)); }},
      {"unshare", [] { return denied(::unshare(CLONE_NEWUTS)); }},
      {"setns", [] { return denied(::setns(0, 0)); }},
      {"mount", [] { return denied(::mount("none", "/tmp", "tmpfs", 0, nullptr)); }},
      {"bpf", [] { return denied(::syscall(SYS_bpf, 0, nullptr, 0)); }},
      {"setuid", [] { return denied(::setuid(0)); }},
      {"capset", [] { return denied(::syscall(SYS_capset, nullptr, nullptr)); }},
      {"io_uring", [] { return denied(::syscall(SYS_io_uring_setup, 1, nullptr)); }},
      {"seccomp", [] { return denied(::syscall(SYS_seccomp, 0, 0, nullptr)); }},
      {"AF_INET", [] { return denied(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)); }},
      {"AF_NETLINK", [] { return denied(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0)); }},
      {"AF_VSOCK", [] { return denied(::socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0)); }},
      {"fork", [] { return denied(::fork()); }},
      {"execve", [] {
         char* const none[] = {nullptr};
         return denied(::execve("/bin/true", none, none));
       }},
  };
  for (const auto& [name, probe] : probes) {
    CAPTURE(name);
    CHECK(confined(shim::Events::kSocket, probe) == 0);
  }
}

TEST_CASE("its work goes on: Unix sockets, files of root's, and signals to another user's process") {
  const pid_t other = ::fork();
  if (other == 0) {
    if (::setresuid(65534, 65534, 65534) != 0) {
      ::_exit(1);
    }
    for (;;) {
      ::pause();
    }
  }
  CHECK(confined(shim::Events::kSocket, [] { return ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0) >= 0; }) == 0);
  CHECK(confined(shim::Events::kSocket, [] { return ::open("/proc/self/status", O_RDONLY | O_CLOEXEC) >= 0; }) == 0);
  CHECK(confined(shim::Events::kSocket, [other] { return ::kill(other, SIGKILL) == 0; }) == 0);
  int status = 0;
  REQUIRE(::waitpid(other, &status, 0) == other);
  CHECK((WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL));
}

TEST_CASE("a shim that runs a command for its events may still do that") {
  CHECK(confined(shim::Events::kCommands, [] {
    const pid_t pid = ::fork();
    if (pid == 0) {
      char* const none[] = {nullptr};
      (void)::execve("/bin/true", none, none);
      ::_exit(1);
    }
    int status = 1;
    return pid > 0 && ::waitpid(pid, &status, 0) == pid && status == 0;
  }) == 0);
}

int main(int argc, char** argv) {
  if (::getuid() != 0) {
    std::puts("SKIP: needs root");
    return 77;
  }
  doctest::Context context(argc, argv);
  return context.run();
}
