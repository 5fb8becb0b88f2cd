#include "tools/bench/raw_boot/boot.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <utility>

#include "base/process.hpp"
#include "shim/wire/host_session.hpp"
#include "tools/bench/raw_boot/tap.hpp"

namespace cellrund::bench {
namespace {

using base::Deadline;
using base::Errc;
using base::Error;

constexpr std::chrono::seconds kReapPatience{5};

// One boot from HELLO to EXIT. What was reached, and when, is noted as it happens, so that a boot that hangs says
// where.
class Boot {
 public:
  Boot(const BootPlan& plan, Sample& sample, base::UniqueFd agent, base::UniqueFd qmp, wire::HostSession session)
      : plan_(plan), sample_(sample), agent_(std::move(agent)), qmp_(std::move(qmp)), session_(std::move(session)) {}

  base::Status run(Deadline deadline) {
    while (!ended_) {
      CR_CHECK(flush());
      std::array<pollfd, 2> polls{
          {{agent_.get(), static_cast<short>(session_.output().empty() ? POLLIN : POLLIN | POLLOUT), 0},
           {qmp_.get(), POLLIN, 0}}};
      if (::poll(polls.data(), polls.size(), deadline.poll_timeout_ms()) == 0) {
        return Error(Errc::kDeadlineExceeded, "hang");
      }
      if (polls[1].revents != 0) {
        CR_CHECK(read_qmp());
      }
      if ((polls[0].revents & (POLLIN | POLLHUP | POLLERR)) != 0) {
        CR_CHECK(read_agent());
      }
    }
    return out_ == plan_.expected ? base::ok()
                                  : base::Status(Error(Errc::kUnknown, "the output is not what was expected"));
  }

 private:
  void reached(const char* stage, std::int64_t when) {
    sample_.details.set("stage", stage);
    sample_.details.set(std::string(stage) + "Ns", when);
  }

  // What QEMU says is read, so that it is never kept waiting, and looked at for a refusal only.
  base::Status read_qmp() {
    std::array<char, 4096> buffer{};
    const ssize_t n = ::recv(qmp_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
      return base::ok();
    }
    if (n <= 0) {
      return Error(Errc::kUnavailable, "QEMU ended");
    }
    if (std::string_view(buffer.data(), static_cast<std::size_t>(n)).find("\"error\"") != std::string_view::npos) {
      return Error(Errc::kFailedPrecondition, "QMP refused a command");
    }
    return base::ok();
  }

  base::Status read_agent() {
    std::array<std::uint8_t, 65536> buffer;  // NOLINT(cppcoreguidelines-pro-type-member-init): filled by recv
    const ssize_t n = ::recv(agent_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
      return base::ok();
    }
    if (n <= 0) {
      return Error(Errc::kUnavailable, "QEMU ended");
    }
    const std::int64_t now = now_ns();
    for (wire::Event& event : session_.feed({buffer.data(), static_cast<std::size_t>(n)})) {
      CR_CHECK(handle(event, now));
    }
    return base::ok();
  }

  base::Status handle(wire::Event& event, std::int64_t now) {
    if (std::holds_alternative<wire::HelloEvent>(event)) {
      reached("hello", now);
      return session_.send_workload(plan_.workload);
    }
    if (std::holds_alternative<wire::ReadyEvent>(event)) {
      reached("ready", now);
      return session_.start();
    }
    if (std::holds_alternative<wire::StartedEvent>(event)) {
      reached("started", now);
    } else if (const auto* output = std::get_if<wire::OutputEvent>(&event)) {
      if (output->stream == wire::Stream::kStdout) {
        sample_.first_byte_ns = sample_.first_byte_ns == 0 ? now : sample_.first_byte_ns;
        out_ += base::as_text(output->data);
      }
      session_.grant(output->stream, output->data.size());
    } else if (const auto* exit = std::get_if<wire::ExitEvent>(&event)) {
      sample_.end_ns = now;
      ended_ = true;
      if (exit->exit.kind != wire::ExitKind::kExited || exit->exit.value != 0) {
        return Error(Errc::kUnknown, std::string(wire::to_string(exit->exit.kind)) + " " +
                                         std::to_string(exit->exit.value) + ": " + exit->exit.message);
      }
    } else if (const auto* broken = std::get_if<wire::ProtocolErrorEvent>(&event)) {
      return Error(Errc::kDataLoss, broken->what);
    }
    return base::ok();
  }

  base::Status flush() {
    while (!session_.output().empty()) {
      const base::BytesView out = session_.output();
      const ssize_t n = ::send(agent_.get(), out.data(), out.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
      if (n < 0) {
        return errno == EAGAIN || errno == EINTR ? base::ok() : base::Status(Error::from_errno("send to the guest"));
      }
      session_.consumed(static_cast<std::size_t>(n));
    }
    return base::ok();
  }

  const BootPlan& plan_;
  Sample& sample_;
  base::UniqueFd agent_, qmp_;
  wire::HostSession session_;
  std::string out_;
  bool ended_ = false;
};

base::Status boot(const BootPlan& plan, Sample& sample) {
  sample.details.set("stage", "qemu");
  base::SocketPair qmp = CR_TRY(base::make_socket_pair(SOCK_STREAM));
  base::SocketPair agent = CR_TRY(base::make_socket_pair(SOCK_STREAM));
  const base::UniqueFd tap = CR_TRY(make_lone_tap());
  base::SpawnOptions options;
  options.argv = plan.argv;
  options.fds = {{STDERR_FILENO, STDERR_FILENO},
                 {qmp.theirs.get(), plan.qmp},
                 {agent.theirs.get(), plan.agent},
                 {tap.get(), plan.tap}};
  std::vector<base::UniqueFd> files;
  for (const BootPlan::File& file : plan.files) {
    files.push_back(CR_TRY(base::open_file(file.path, file.writable ? O_RDWR : O_RDONLY)));
    options.fds.emplace_back(files.back().get(), file.number);
  }
  // Both commands lie ready: QEMU takes them as soon as it listens (docs/interop/qmp-spec.txt allows this).
  CR_CHECK(
      base::write_all(qmp.ours.get(), base::as_bytes("{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"cont\"}\n")));
  auto session = CR_TRY(wire::HostSession::create(wire::HostSession::Mode::kMicrovm));
  const Deadline deadline = Deadline::after(plan.limit);

  sample.start_ns = now_ns();
  const base::PidFd qemu = CR_TRY(base::spawn(options));
  qmp.theirs.reset();
  agent.theirs.reset();
  const base::Status done =
      Boot(plan, sample, std::move(agent.ours), std::move(qmp.ours), std::move(session)).run(deadline);
  CR_CHECK(qemu.signal(SIGKILL));
  CR_CHECK(qemu.reap(Deadline::after(kReapPatience)));
  return done.ok() ? base::ok() : base::Status(done.error().clone());
}

}  // namespace

Sample raw_boot(const BootPlan& plan) {
  Sample sample;
  if (const base::Status done = boot(plan, sample); !done.ok()) {
    sample.failure = done.error().message();
  }
  return sample;
}

}  // namespace cellrund::bench
