#include "tools/bench/sampler/command.hpp"

#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "base/log.hpp"
#include "base/process.hpp"

namespace cellrund::bench {
namespace {

using base::Deadline;
using base::Errc;
using base::Error;

constexpr std::size_t kMaxOutput = 4096;  // of each stream; the rest is read and dropped
constexpr std::chrono::seconds kReapPatience{5};

struct Stream {
  base::UniqueFd fd;
  std::string kept;
};

// Reads once. False when there was nothing.
bool drain(Stream& stream) {
  std::array<char, 4096> buffer{};
  const ssize_t n = ::read(stream.fd.get(), buffer.data(), buffer.size());
  if (n > 0) {
    stream.kept.append(buffer.data(), std::min(static_cast<std::size_t>(n), kMaxOutput - stream.kept.size()));
    return true;
  }
  if (n == 0) {
    stream.fd.reset();
  }
  return false;
}

base::Status run(const CommandOrder& order, Sample& sample) {
  base::Pipe out_pipe = CR_TRY(base::make_pipe());
  base::Pipe err_pipe = CR_TRY(base::make_pipe());
  // The ends that stay here; whoever holds a pipe open after the program's end is not waited for.
  CR_CHECK(base::set_nonblocking(out_pipe.read.get(), true));
  CR_CHECK(base::set_nonblocking(err_pipe.read.get(), true));
  base::SpawnOptions options;
  options.argv = order.argv;
  options.env = order.env;
  options.working_dir = order.working_dir;
  options.fds = {{out_pipe.write.get(), 1}, {err_pipe.write.get(), 2}};
  const Deadline deadline = Deadline::after(order.limit);

  sample.start_ns = now_ns();
  const base::PidFd child = CR_TRY(base::spawn(options));
  out_pipe.write.reset();
  err_pipe.write.reset();
  Stream out{std::move(out_pipe.read), {}};
  Stream err{std::move(err_pipe.read), {}};
  bool late = false;
  for (bool running = true; running && !late;) {
    std::array<pollfd, 3> polls{{{out.fd.get(), POLLIN, 0}, {err.fd.get(), POLLIN, 0}, {child.fd(), POLLIN, 0}}};
    late = ::poll(polls.data(), polls.size(), deadline.poll_timeout_ms()) == 0;
    const std::int64_t woken = now_ns();
    if (polls[0].revents != 0 && drain(out) && sample.first_byte_ns == 0) {
      sample.first_byte_ns = woken;
    }
    if (polls[1].revents != 0) {
      (void)drain(err);  // kept for the message, whatever it is
    }
    if (polls[2].revents != 0) {
      sample.end_ns = woken;
      running = false;
    }
  }
  if (late) {
    CR_CHECK(child.signal(SIGKILL));
  }
  const auto left = CR_TRY(child.reap(Deadline::after(kReapPatience)));
  while (out.fd && drain(out)) {
  }
  while (err.fd && drain(err)) {
  }
  const std::string words = err.kept.empty() ? "" : ": " + base::log::quoted(err.kept, 512);
  if (late || !left.has_value()) {
    return Error(Errc::kDeadlineExceeded, "did not end in time" + words);
  }
  if (left->signaled || left->value != 0) {
    return Error(Errc::kUnknown,
                 (left->signaled ? "ended by signal " : "exit code ") + std::to_string(left->value) + words);
  }
  if (out.kept != order.expected) {
    return Error(Errc::kUnknown, "the output is not what was expected" + words);
  }
  return base::ok();
}

}  // namespace

Sample run_command_sample(const CommandOrder& order) {
  Sample sample;
  if (const base::Status done = run(order, sample); !done.ok()) {
    sample.failure = done.error().message();
  }
  return sample;
}

}  // namespace cellrund::bench
