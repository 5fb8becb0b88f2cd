#include "cell/lane_process.hpp"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>

#include "base/file.hpp"
#include "cell/outputs.hpp"
#include "cell/workload.hpp"
#include "host/clone.hpp"
#include "shim/wire/host_session.hpp"

namespace cellrund::cell {
namespace {

using base::BootTime;
using base::Error;
using model::Reason;

constexpr int kControlFd = 3;
constexpr int kRootfsFd = 4;
constexpr int kNetnsFd = 5;
constexpr int kOutputsFd = 6;
constexpr int kInputsFd = 7;
constexpr const char* kRole = "cell-init";

class ProcessCell final : public RunningCell {
 public:
  ProcessCell(const host::Cgroup& cgroup, base::PidFd init, base::UniqueFd control, wire::HostSession session)
      : cgroup_(cgroup), init_(std::move(init)), control_(std::move(control)), session_(std::move(session)) {}

  void poll_on(std::vector<pollfd>& polls) const override {
    if (control_) {
      const short out = session_.output().empty() ? short{0} : short{POLLOUT};
      polls.push_back({control_.get(), static_cast<short>(POLLIN | out), 0});
    }
    polls.push_back({init_.fd(), POLLIN, 0});
    if (secret_timer_) {
      polls.push_back({secret_timer_.get(), POLLIN, 0});
    }
  }

  void service(OutputSink& sink) override {
    revoke_due();
    pump(sink);
    if (end_.has_value()) {
      return;
    }
    auto reaped = init_.reap(base::Deadline::after(base::Nanoseconds(0)));
    if (reaped.ok() && !reaped->has_value()) {
      return;
    }
    pump(sink);  // what it wrote before it went
    finish();
  }

  const std::optional<LaneEnd>& end() const override { return end_; }

  base::Status signal(int signo) override {
    session_.signal(signo);
    return flush();
  }

  base::Result<KillTarget> kill_target() const override { return kill_target_of(cgroup_, {init_.id()}); }
  BootTime started() const override { return started_; }

  model::LaneFacts facts() const override {
    model::LaneFacts facts;
    facts.name = to_string(model::Lane::kProcess);
    facts.tier = model::tier_of(model::Lane::kProcess);
    return facts;
  }

  // From HELLO to START. Any event that does not belong there ends the start.
  base::Status bring_up(CellPlan& plan, const wire::Workload& workload, base::Deadline deadline, OutputSink& sink) {
    while (started_.ns == 0) {
      if (plan.cancel.raised()) {
        return Error(base::Errc::kCancelled, "cancelled before START");
      }
      std::vector<pollfd> polls;
      poll_on(polls);
      polls.push_back({plan.cancel.fd(), POLLIN, 0});
      const int n = ::poll(polls.data(), polls.size(), deadline.poll_timeout_ms());
      if (n == 0) {
        return Error(base::Errc::kDeadlineExceeded, "cell-init is not ready");
      }
      pump(sink);
      if (hello_ && !workload_sent_) {
        workload_sent_ = true;
        CR_CHECK(session_.send_workload(workload));
      }
      if (ready_) {
        const BootTime now = BootTime::now();
        if (!plan.secrets.empty()) {
          plan.on_secrets();
          CR_CHECK(hand_over(plan.secrets, now));
          plan.secrets.clear();
        }
        CR_CHECK(session_.start((now + plan.job.spec().active_deadline).ns));
        started_ = now;
      }
      CR_CHECK(flush());
      if (exit_.has_value() || failed_.has_value() || !control_) {
        const std::string why = exit_.has_value() ? exit_->message : failed_.value_or("cell-init closed its channel");
        return Error(base::Errc::kUnavailable, why);
      }
    }
    return base::ok();
  }

 private:
  base::Status hand_over(const std::vector<wire::NamedSecret>& secrets, BootTime now) {
    for (const wire::NamedSecret& secret : secrets) {
      CR_CHECK(session_.send_secret(secret));
      if (secret.ttl.count() > 0) {
        to_revoke_.emplace_back(secret.name, now + secret.ttl);
      }
    }
    return arm_secret_timer();
  }

  base::Status arm_secret_timer() {
    secret_timer_.reset();
    const auto next = std::min_element(to_revoke_.begin(), to_revoke_.end(),
                                       [](const auto& a, const auto& b) { return a.second < b.second; });
    if (next != to_revoke_.end()) {
      secret_timer_ = CR_TRY(base::boot_timer(next->second));
    }
    return base::ok();
  }

  void revoke_due() {
    const BootTime now = BootTime::now();
    const std::size_t before = to_revoke_.size();
    bool sent = true;
    std::erase_if(to_revoke_, [&](const auto& secret) {
      if (secret.second > now) {
        return false;
      }
      if (session_.revoke(secret.first)) {
        revoked_.emplace_back(secret.first, now);
      } else {
        sent = false;
      }
      return true;
    });
    if (!sent || (to_revoke_.size() != before && !arm_secret_timer().ok())) {
      (void)init_.signal(SIGKILL);  // what cannot be withdrawn in time is withdrawn now, with its cell
    }
  }

  void pump(OutputSink& sink) {
    // At most as much as the credits allow the other side to have in flight, so one cell cannot hold the thread.
    constexpr int kMaxReads = 16;
    std::array<std::uint8_t, 65536> buffer{};
    for (int i = 0; i < kMaxReads && control_; ++i) {
      const ssize_t n = ::recv(control_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
      if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        break;
      }
      if (n <= 0) {
        control_.reset();
        break;
      }
      for (wire::Event& event : session_.feed({buffer.data(), static_cast<std::size_t>(n)})) {
        handle(event, sink);
      }
    }
    if (auto status = flush(); !status.ok()) {
      control_.reset();
    }
  }

  void handle(wire::Event& event, OutputSink& sink) {
    if (std::holds_alternative<wire::HelloEvent>(event)) {
      hello_ = true;
    } else if (std::holds_alternative<wire::ReadyEvent>(event)) {
      ready_ = true;
    } else if (const auto* output = std::get_if<wire::OutputEvent>(&event)) {
      sink.write(output->stream == wire::Stream::kStderr ? Stream::kStderr : Stream::kStdout, output->data);
      session_.grant(output->stream, output->data.size());
    } else if (const auto* exit = std::get_if<wire::ExitEvent>(&event)) {
      exit_ = exit->exit;
      // EXIT is the last word, sent after all output: whatever is left in the namespace dies with its PID 1.
      (void)init_.signal(SIGKILL);
    } else if (const auto* error = std::get_if<wire::ProtocolErrorEvent>(&event)) {
      failed_ = error->what;
      (void)init_.signal(SIGKILL);  // a channel that lies is of no more use; the scan sees survivors
    }
  }

  base::Status flush() {
    while (control_ && !session_.output().empty()) {
      const base::BytesView out = session_.output();
      const ssize_t n = ::send(control_.get(), out.data(), out.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
      if (n < 0) {
        if (errno == EAGAIN) {
          return base::ok();
        }
        return Error::from_errno("send to cell-init");
      }
      session_.consumed(static_cast<std::size_t>(n));
    }
    return base::ok();
  }

  void finish() {
    LaneEnd end;
    end.ended = BootTime::now();
    end.revoked = revoked_;
    if (!exit_.has_value()) {
      end.kind = failed_.has_value() ? EndKind::kAgentUnreachable : EndKind::kVmmDied;
      end.message = failed_.value_or("cell-init died without a report");
      end_ = std::move(end);
      return;
    }
    end.value = exit_->value;
    end.message = exit_->message;
    end.limits = {.memory = exit_->oom_killed, .pids = exit_->pids_exhausted, .disk = exit_->disk_full};
    switch (exit_->kind) {
      case wire::ExitKind::kExited: end.kind = EndKind::kExited; break;
      case wire::ExitKind::kSignaled: end.kind = EndKind::kSignaled; break;
      case wire::ExitKind::kExecFailed: end.kind = EndKind::kExecFailed; break;
      case wire::ExitKind::kSetupFailed: end.kind = EndKind::kAgentUnreachable; break;
    }
    const auto note = [&](const char* what, std::int64_t at) {
      if (at != 0) {
        end.ladder.push_back(ladder_step(what, started_, BootTime{at}));
      }
    };
    note("TERM", exit_->stop_sent_boot_ns);
    note("KILL", exit_->kill_sent_boot_ns);
    if (exit_->stop_sent_boot_ns != 0) {
      end.deadline_fired = BootTime{exit_->stop_sent_boot_ns};
    }
    end_ = std::move(end);
  }

  const host::Cgroup& cgroup_;
  base::PidFd init_;
  base::UniqueFd control_;
  wire::HostSession session_;
  BootTime started_;
  std::vector<std::pair<std::string, BootTime>> to_revoke_, revoked_;
  base::UniqueFd secret_timer_;
  bool hello_ = false;
  bool workload_sent_ = false;
  bool ready_ = false;
  std::optional<wire::Exit> exit_;
  std::optional<std::string> failed_;
  std::optional<LaneEnd> end_;
};

class ProcessLane final : public Lane {
 public:
  ProcessLane(std::string path, base::UniqueFd program) : path_(std::move(path)), program_(std::move(program)) {}

  model::Inventory intended(const model::CellName& /*name*/) const override {
    return {{model::ItemKind::kProcess, kRole, ""}};
  }
  std::uint64_t memory_overhead() const override { return 8ULL << 20U; }
  bool uses_containerd() const override { return false; }

  base::Result<std::unique_ptr<RunningCell>, StartFailure> start(CellPlan plan, base::Deadline deadline,
                                                                 OutputSink& sink) override {
    auto cell = spawn(plan);
    if (!cell.ok()) {
      return StartFailure{Reason::kCreateContainerError, cell.error().message()};
    }
    auto up = (*cell)->bring_up(plan, workload_of(plan), deadline, sink);
    if (!up.ok()) {
      const bool late = up.error().code() == base::Errc::kDeadlineExceeded;
      return StartFailure{late ? Reason::kStartDeadlineExceeded : Reason::kAgentUnreachable, up.error().message()};
    }
    return std::unique_ptr<RunningCell>(std::move(cell).value());
  }

 private:
  static wire::Workload workload_of(const CellPlan& plan) {
    wire::Workload workload = base_workload(plan);
    workload.process = wire::ProcessRoot{kRootfsFd, kNetnsFd, workload.outputs ? kOutputsFd : -1};
    if (workload.inputs.has_value()) {
      workload.inputs->image_fd = kInputsFd;
    }
    return workload;
  }

  base::Result<std::unique_ptr<ProcessCell>> spawn(const CellPlan& plan) const {
    base::SocketPair channel = CR_TRY(base::make_socket_pair(SOCK_STREAM));
    host::CloneOptions options;
    options.argv = {path_, "--process"};
    options.program_fd = program_.get();
    options.fds = {{channel.theirs.get(), kControlFd},
                   {plan.image.rootfs_fd(), kRootfsFd},
                   {plan.network.netns_fd(), kNetnsFd}};
    base::UniqueFd outputs;
    if (plan.job.spec().volumes.outputs.has_value()) {
      outputs = CR_TRY(connect_outputs(plan.folder));
      options.fds.emplace_back(outputs.get(), kOutputsFd);
    }
    if (plan.inputs != nullptr) {
      options.fds.emplace_back(plan.inputs->fd(), kInputsFd);
    }
    options.namespaces = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC;
    base::UniqueFd cgroup;
    if (auto v2 = plan.cgroup.open_v2(); v2.ok()) {
      cgroup = std::move(v2).value();
      options.cgroup_fd = cgroup.get();
    }
    base::PidFd init = CR_TRY(host::clone_and_exec(options).context("start cell-init"));
    const base::ProcessId id = init.id();
    auto cell = std::make_unique<ProcessCell>(plan.cgroup, std::move(init), std::move(channel.ours),
                                              CR_TRY(wire::HostSession::create(wire::HostSession::Mode::kProcess)));
    CR_CHECK(plan.journal.created({model::ItemKind::kProcess, kRole,
                                   std::to_string(id.pid) + ":" + std::to_string(id.start_time)}));
    CR_CHECK(cgroup ? plan.cgroup.add_v1(id.pid) : plan.cgroup.add(id.pid));
    return cell;
  }

  std::string path_;
  base::UniqueFd program_;
};

}  // namespace

base::Result<std::unique_ptr<Lane>> make_process_lane(const std::string& cell_init) {
  base::UniqueFd program = CR_TRY(base::open_file(cell_init, O_RDONLY));
  return std::unique_ptr<Lane>(std::make_unique<ProcessLane>(cell_init, std::move(program)));
}

}  // namespace cellrund::cell
