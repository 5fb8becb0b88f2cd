#include "host/box.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <stop_token>

#include "base/file.hpp"
#include "host/clone.hpp"

namespace cellrund::host {
namespace {

using base::Deadline;
using base::Errc;
using base::Error;
using base::Result;
using base::UniqueFd;

constexpr std::size_t kMessageLimit = 8192;

struct Stream {
  UniqueFd fd;
  std::string text;
  std::size_t limit = 0;
  bool overflow = false;
};

// One read; drops what exceeds the limit and remembers that.
void drain(Stream& stream) {
  std::array<char, 4096> buffer{};
  const ssize_t n = ::read(stream.fd.get(), buffer.data(), buffer.size());
  if (n < 0 && errno == EINTR) {
    return;
  }
  if (n <= 0) {
    stream.fd.reset();
    return;
  }
  const std::size_t room = stream.limit - stream.text.size();
  stream.overflow = stream.overflow || static_cast<std::size_t>(n) > room;
  stream.text.append(buffer.data(), std::min(static_cast<std::size_t>(n), room));
}

// Reads both streams until the box has closed them. False at the deadline or when the result is too long.
bool collect(Stream& out, Stream& err, Deadline deadline) {
  while (out.fd || err.fd) {
    std::array<pollfd, 2> polls{{{out.fd.get(), POLLIN, 0}, {err.fd.get(), POLLIN, 0}}};
    const int n = ::poll(polls.data(), polls.size(), deadline.poll_timeout_ms());
    if (n == 0 || (n < 0 && errno != EINTR)) {
      return false;
    }
    if (n > 0 && polls[0].revents != 0) {
      drain(out);
    }
    if (n > 0 && polls[1].revents != 0) {
      drain(err);
    }
    if (out.overflow) {
      return false;
    }
  }
  return true;
}

}  // namespace

Result<base::PidFd> start_box(const BoxOptions& options, std::string_view request, int result_fd, int message_fd) {
  // The program is opened here and run by descriptor: the ids inside need not reach its folder.
  const UniqueFd program = CR_TRY(base::open_file(options.program, O_RDONLY).context("start box"));
  const UniqueFd input = CR_TRY(base::sealed_memfd("box-request", base::as_bytes(request)));
  CloneOptions clone;
  clone.argv.push_back(options.program);
  clone.argv.insert(clone.argv.end(), options.args.begin(), options.args.end());
  clone.env = {"PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8"};
  clone.program_fd = program.get();
  clone.fds = options.fds;
  clone.fds.emplace_back(input.get(), 0);
  if (result_fd >= 0) {
    clone.fds.emplace_back(result_fd, 1);
  }
  if (message_fd >= 0) {
    clone.fds.emplace_back(message_fd, 2);
  }
  clone.namespaces =
      CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;
  clone.namespaces |= options.keep_network ? 0U : static_cast<std::uint64_t>(CLONE_NEWNET);
  clone.cgroup_fd = options.cgroup_fd;
  clone.id_map = {{0, options.ids.base, options.ids.count}};
  clone.identity = Identity{0, 0};
  clone.no_new_privs = true;
  clone.new_session = true;
  clone.parent_death_signal = options.die_with_caller ? SIGKILL : 0;
  clone.working_dir = "/";
  return clone_and_exec(clone).context("start box");
}

Result<BoxResult> run_box(const BoxOptions& options, std::string_view request, const base::Until& until,
                          std::size_t result_limit) {
  base::Pipe out = CR_TRY(base::make_pipe());
  base::Pipe err = CR_TRY(base::make_pipe());
  BoxOptions ours = options;
  ours.die_with_caller = true;  // this thread waits here until the box has ended
  const base::PidFd child = CR_TRY(start_box(ours, request, out.write.get(), err.write.get()));
  out.write.reset();
  err.write.reset();
  Stream result{std::move(out.read), {}, result_limit};
  Stream messages{std::move(err.read), {}, kMessageLimit};
  // Its streams end with it, so the loop below needs no other notice.
  const std::stop_callback stop(until.stop, [&child] { (void)child.signal(SIGKILL); });
  const bool complete = collect(result, messages, until.deadline);
  auto exit = complete ? child.reap(until.deadline) : Result<std::optional<base::ExitStatus>>(std::nullopt);
  if (exit.ok() && exit->has_value() && !until.stopped()) {
    return BoxResult{**exit, std::move(result.text), std::move(messages.text)};
  }
  (void)child.signal(SIGKILL);  // it may have ended in between; the reap tells
  constexpr auto kKillBudget = std::chrono::seconds(10);
  if (!exit.ok() || !exit->has_value()) {
    auto reaped = child.reap(Deadline::after(kKillBudget));
    if (!reaped.ok() || !reaped->has_value()) {
      return Error(Errc::kDeadlineExceeded, "box " + options.program + " does not die");
    }
  }
  if (until.stopped()) {
    return Error(Errc::kCancelled, "box " + options.program + " was stopped");
  }
  if (result.overflow) {
    return Error(Errc::kResourceExhausted, "box " + options.program + " wrote too long a result and was killed");
  }
  return Error(Errc::kDeadlineExceeded, "box " + options.program + " did not end in time and was killed");
}

}  // namespace cellrund::host
