// Processes by identity. A pid alone is a name that the kernel reuses; a pidfd, or pid plus start time, is not.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"

namespace cellrund::base {

// Field 22 of /proc/PID/stat in clock ticks since boot: with the pid, unique for one boot (proc(5)).
struct ProcessId {
  pid_t pid = 0;
  std::uint64_t start_time = 0;
  friend auto operator<=>(const ProcessId&, const ProcessId&) = default;
};

// kNotFound when no such process exists. A zombie still has an identity.
Result<ProcessId> process_id(pid_t pid);
// True only while that very process exists and is not a zombie.
[[nodiscard]] bool is_alive(const ProcessId& id) noexcept;

struct ExitStatus {
  bool signaled = false;
  int value = 0;  // exit code, or signal number when signaled
};

class PidFd {
 public:
  PidFd() noexcept = default;
  PidFd(UniqueFd fd, ProcessId id) noexcept : fd_(std::move(fd)), id_(id) {}

  // pidfd_open(2), then the start time is compared, so that a recycled pid gives kNotFound.
  static Result<PidFd> open(const ProcessId& id);
  static Result<PidFd> open(pid_t pid);

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  [[nodiscard]] bool valid() const noexcept { return fd_.valid(); }
  [[nodiscard]] const ProcessId& id() const noexcept { return id_; }
  // pidfd_send_signal(2). A process that is already gone is success.
  Status signal(int signo) const;
  // Readable means exited. True when it exited before the deadline.
  Result<bool> wait_exit(Deadline deadline) const;
  // waitid(P_PIDFD) for our own child; nullopt at the deadline.
  Result<std::optional<ExitStatus>> reap(Deadline deadline) const;

 private:
  UniqueFd fd_;
  ProcessId id_;
};

// argv and envp as execve(2) takes them, with the null pointer at the end. Borrowed: `strings` must outlive it.
[[nodiscard]] std::vector<char*> c_strings(const std::vector<std::string>& strings);

// What a child gets. Nothing is inherited that is not listed here.
struct SpawnOptions {
  std::vector<std::string> argv;             // argv[0] is the absolute path that is run
  std::vector<std::string> env;              // "NAME=value"; empty means an empty environment
  std::vector<std::pair<int, int>> fds;      // (our descriptor, number in the child); 0, 1, 2 default to /dev/null
  bool new_session = false;                  // setsid(2): survives the end of our session
  std::string working_dir;                   // empty: ours
};

// posix_spawn(3), so safe from a process with threads. The child starts with default signal handlers and an
// empty signal mask. Postcondition of success: the child exists and the pidfd refers to it.
Result<PidFd> spawn(const SpawnOptions& options);

struct CommandResult {
  ExitStatus exit;
  std::string out;  // stdout, at most `output_limit` bytes
  std::string err;  // stderr, the same
};

// Runs to the end or to the deadline (then SIGKILL and kDeadlineExceeded). `input` goes to its stdin.
Result<CommandResult> run_command(const SpawnOptions& options, std::string_view input, Deadline deadline,
                                  std::size_t output_limit = 65536);

}  // namespace cellrund::base
