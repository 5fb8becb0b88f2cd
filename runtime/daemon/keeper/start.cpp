#include "daemon/keeper/start.hpp"

#include <signal.h>
#include <unistd.h>

#include <array>

#include "base/file.hpp"
#include "base/json.hpp"
#include "daemon/keeper/containerd_process.hpp"
#include "daemon/keeper/keeper.hpp"
#include "daemon/keeper/run_folder.hpp"

namespace cellrund::daemon::keeper {
namespace {

constexpr int kReadyFd = 3;
constexpr std::size_t kMaxReport = 16 * 1024;
constexpr std::chrono::seconds kReapTimeout{5};

// Up to the end of file: the keeper closes its end after the report, and its death closes it too.
base::Result<std::string> read_report(int fd, base::Deadline deadline) {
  std::string out;
  std::array<char, 4096> buffer{};
  while (out.size() < kMaxReport) {
    if (!CR_TRY(base::wait_readable(fd, deadline))) {
      return base::Error(base::Errc::kDeadlineExceeded, "the keeper did not report in time");
    }
    const ssize_t n = ::read(fd, buffer.data(), buffer.size());
    if (n == 0) {
      return out;
    }
    if (n < 0 && errno != EINTR) {
      return base::Error::from_errno("read the keeper's report");
    }
    out.append(buffer.data(), static_cast<std::size_t>(std::max<ssize_t>(n, 0)));
  }
  return base::Error(base::Errc::kDataLoss, "the keeper's report is too long");
}

base::Result<Kept> parse_report(const std::string& report) {
  constexpr const char* kWhere = "the keeper's report";
  const std::size_t end = report.find('\n');
  if (end == std::string::npos) {
    return base::Error(base::Errc::kUnavailable, "the keeper ended without a report");
  }
  const auto first = CR_TRY(base::json::parse(std::string_view(report).substr(0, end), {}).context(kWhere));
  if (const auto* error = first.find("error"); error != nullptr && error->as_string() != nullptr) {
    return base::Error(base::Errc::kFailedPrecondition, *error->as_string());
  }
  const auto* pid = first.find("pid");
  const auto* start_time = first.find("startTime");
  if (pid == nullptr || pid->as_int() == nullptr || start_time == nullptr || start_time->as_int() == nullptr) {
    return base::Error(base::Errc::kDataLoss, std::string(kWhere) + ": malformed");
  }
  const base::ProcessId id{static_cast<pid_t>(*pid->as_int()), static_cast<std::uint64_t>(*start_time->as_int())};
  Kept out;
  out.containerd = CR_TRY(decode_containerd_state(std::string_view(report).substr(end + 1), kWhere));
  out.keeper = CR_TRY(base::PidFd::open(id));
  return out;
}

}  // namespace

base::Result<Kept> ensure_keeper(const std::string& keeper_binary, const Config& config, base::Deadline deadline) {
  CR_CHECK(validate(config));
  base::Pipe report = CR_TRY(base::make_pipe());
  base::SpawnOptions options;
  options.argv = to_arguments(config);
  options.argv.insert(options.argv.begin(), keeper_binary);
  options.argv.insert(options.argv.end(), {"--ready-fd", std::to_string(kReadyFd)});
  options.fds = {{report.write.get(), kReadyFd}, {STDERR_FILENO, STDERR_FILENO}};
  options.new_session = true;
  options.working_dir = "/";
  base::PidFd child = CR_TRY(base::spawn(options));
  report.write.reset();
  auto text = read_report(report.read.get(), deadline);
  auto kept = text.ok() ? parse_report(*text) : base::Result<Kept>(std::move(text).error());
  if (kept.ok() && kept->keeper.id() == child.id()) {
    kept->started = true;
    return kept;
  }
  // Either another keeper serves, and this one has nothing more to do, or it failed.
  if (!kept.ok()) {
    (void)child.signal(SIGTERM);
  }
  (void)child.reap(base::Deadline::after(kReapTimeout));  // a zombie less; the result above is what counts
  return std::move(kept).context("start the keeper");
}

base::Status stop_keeper(const std::string& run_dir, base::Deadline deadline) {
  if (!base::exists(run_dir)) {
    return base::ok();
  }
  for (;;) {
    auto lock = CR_TRY(Lock::try_acquire(run_dir));
    if (lock.has_value()) {
      // No keeper lives. One that was killed may have left its containerd.
      for (const base::PidFd& process : CR_TRY(find_containerds(run_dir))) {
        CR_CHECK(stop_containerd(process, deadline));
      }
      auto cleaned = remove_leftovers(run_dir);
      auto unlocked = lock->remove();
      return cleaned.ok() ? std::move(unlocked) : std::move(cleaned);
    }
    FolderWatch folder = CR_TRY(FolderWatch::create(run_dir));
    const auto state = read_keeper_state(run_dir);
    auto keeper = state.ok() ? base::PidFd::open(state->process) : base::Result<base::PidFd>(state.error().clone());
    if (keeper.ok()) {
      CR_CHECK(keeper->signal(SIGTERM));
      if (!CR_TRY(keeper->wait_exit(deadline))) {
        return base::Error(base::Errc::kDeadlineExceeded,
                           "the keeper (pid " + std::to_string(state->process.pid) + ") does not end");
      }
    } else {
      // Held, but its owner has not said yet who it is, or has just gone.
      constexpr std::chrono::milliseconds kLookAgain{200};
      CR_CHECK(folder.wait(base::Deadline::after(std::min<base::Nanoseconds>(kLookAgain, deadline.remaining()))));
    }
    if (deadline.expired()) {
      return base::Error(base::Errc::kDeadlineExceeded, "stop the keeper of " + run_dir + ": it does not let go");
    }
  }
}

}  // namespace cellrund::daemon::keeper
