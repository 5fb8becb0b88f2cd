#include "cell/lane_microvm.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>

#include "base/file.hpp"
#include "cell/oci_spec.hpp"
#include "cell/secret_server.hpp"
#include "cell/shim_report.hpp"
#include "cell/vmm_box.hpp"
#include "containerd/timeouts.hpp"

namespace cellrund::cell {
namespace {

using base::BootTime;
using base::Errc;
using base::Error;
using model::ItemKind;
using model::Reason;

// Long enough for a busy shim to write its report after its VMM has died, short against the kill slack.
constexpr std::chrono::milliseconds kReportSlack{1500};
// Output that is still in a FIFO when the cell has ended arrives at once; a writer that stays open is not waited for.
constexpr std::chrono::milliseconds kDrainSlack{300};
constexpr std::chrono::seconds kSignalTimeout{2};

std::string identity_text(const base::ProcessId& id) {
  return std::to_string(id.pid) + ":" + std::to_string(id.start_time);
}

// The process that listens on a Unix socket, by its credentials at listen(2) (unix(7), SO_PEERCRED).
base::Result<base::PidFd> listener_of(const std::string& socket_path) {
  base::UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) {
    return Error::from_errno("socket");
  }
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket_path.size() >= sizeof address.sun_path) {
    return Error(Errc::kInvalidArgument, socket_path + " is too long for a socket path");
  }
  socket_path.copy(address.sun_path, socket_path.size());
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return Error::from_errno("connect to " + socket_path);
  }
  ucred peer{};
  socklen_t size = sizeof peer;
  if (::getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) {
    return Error::from_errno("getsockopt SO_PEERCRED");
  }
  return base::PidFd::open(peer.pid);
}

struct Output {
  Stream stream;
  base::UniqueFd fifo;
};

class MicrovmCell final : public RunningCell {
 public:
  MicrovmCell(const MicrovmOptions& options, containerd::Client& client, const host::Cgroup& cgroup, std::string id,
              std::string bundle, std::array<Output, 2> outputs)
      : options_(options), client_(client), cgroup_(cgroup), id_(std::move(id)), bundle_(std::move(bundle)),
        outputs_(std::move(outputs)) {}

  // `box` was proven before START: the report must be of the same process, and adds only what the kernel cannot know.
  base::Status adopt(ShimStarted started, ProvenBox box) {
    if (started.vmm != box.process.id()) {
      (void)box.process.signal(SIGKILL);  // the other one, the teardown finds in the cell's cgroup
      return Error(Errc::kFailedPrecondition, "the shim's VMM is not the one whose box was proven");
    }
    if (started.lane.vmm.has_value()) {
      box.facts.path = std::move(started.lane.vmm->path);
      box.facts.digest = std::move(started.lane.vmm->digest);
      box.facts.version = std::move(started.lane.vmm->version);
    }
    started.lane.vmm = std::move(box.facts);
    vmm_ = std::move(box.process);
    shim_ = CR_TRY(base::PidFd::open(started.shim));
    runtime_ = CR_TRY(listener_of(options_.containerd_socket));
    started_ = std::move(started);
    return base::ok();
  }

  void poll_on(std::vector<pollfd>& polls) const override {
    for (const Output& output : outputs_) {
      if (output.fifo) {
        polls.push_back({output.fifo.get(), POLLIN, 0});
      }
    }
    if (!vmm_dead_) {
      polls.push_back({vmm_.fd(), POLLIN, 0});
    }
    if (!shim_dead_) {
      polls.push_back({shim_.fd(), POLLIN, 0});
    }
    if (!runtime_dead_) {
      polls.push_back({runtime_.fd(), POLLIN, 0});
    }
    if (timer_) {
      polls.push_back({timer_.get(), POLLIN, 0});
    }
  }

  void service(OutputSink& sink) override {
    drain(sink);
    const auto gone = [](const base::PidFd& process) {
      const auto exited = process.wait_exit(base::Deadline::after(base::Nanoseconds(0)));
      return !exited.ok() || *exited;
    };
    vmm_dead_ = vmm_dead_ || gone(vmm_);
    shim_dead_ = shim_dead_ || gone(shim_);
    runtime_dead_ = runtime_dead_ || gone(runtime_);
    if (!report_.has_value()) {
      find_cause();
    }
    if (report_.has_value() && !vmm_dead_) {
      (void)vmm_.signal(SIGKILL);  // the workload is over; a VMM that stays shows in end() and in the scan
    }
    if (report_.has_value() && vmm_dead_) {
      const bool drained = !outputs_[0].fifo && !outputs_[1].fifo;
      if (drained || passed(drain_until_, kDrainSlack)) {
        drain(sink);
        timer_.reset();
        end_ = std::move(report_);
      }
    }
  }

  const std::optional<LaneEnd>& end() const override { return end_; }

  base::Status signal(int signo) override {
    if (end_.has_value() || runtime_dead_) {
      return base::ok();
    }
    auto status = client_.kill_task(id_, signo, containerd::Call(base::Deadline::after(kSignalTimeout)));
    if (!status.ok() && status.error().code() == Errc::kNotFound) {
      return base::ok();
    }
    return status;
  }

  base::Result<KillTarget> kill_target() const override { return kill_target_of(cgroup_, {started_.vmm}); }
  BootTime started() const override { return started_.started; }

  model::LaneFacts facts() const override {
    model::LaneFacts facts = started_.lane;
    facts.name = to_string(model::Lane::kMicrovm);
    facts.tier = model::tier_of(model::Lane::kMicrovm);
    facts.runtime = kMicrovmRuntime;
    facts.shim_digest = options_.shim_digest;
    return facts;
  }

 private:
  // The first cause wins: the shim's own report, then who died.
  void find_cause() {
    if (auto report = read_shim_exit(bundle_, started_.started); report.ok()) {
      report_ = std::move(report).value();
      return;
    }
    if (shim_dead_) {
      conclude(EndKind::kShimDied, "the shim died");
    } else if (runtime_dead_) {
      conclude(EndKind::kRuntimeDied, "containerd died");
    } else if (vmm_dead_ && passed(report_until_, kReportSlack)) {
      conclude(EndKind::kVmmDied, "the VMM died without a report from the shim");
    }
  }

  void conclude(EndKind kind, const char* message) {
    LaneEnd end;
    end.kind = kind;
    end.message = message;
    end.ended = BootTime::now();
    report_ = std::move(end);
  }

  // Starts a span on first use and tells whether it has passed; the timer wakes the supervisor at its end.
  bool passed(std::optional<BootTime>& until, base::Nanoseconds span) {
    const BootTime now = BootTime::now();
    if (!until.has_value()) {
      until = now + span;
      if (auto timer = base::boot_timer(*until); timer.ok()) {
        timer_ = std::move(timer).value();
      }
    }
    return now >= *until;
  }

  void drain(OutputSink& sink) {
    // Bounded, so that a flood in one cell cannot keep its thread from its deadline.
    constexpr int kMaxReads = 16;
    std::array<std::uint8_t, 65536> buffer{};
    for (Output& output : outputs_) {
      for (int i = 0; i < kMaxReads && output.fifo; ++i) {
        const ssize_t n = ::read(output.fifo.get(), buffer.data(), buffer.size());
        if (n > 0) {
          sink.write(output.stream, {buffer.data(), static_cast<std::size_t>(n)});
        } else if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
          break;
        } else {
          output.fifo.reset();  // every writer is gone
        }
      }
    }
  }

  const MicrovmOptions& options_;
  containerd::Client& client_;
  const host::Cgroup& cgroup_;
  std::string id_;
  std::string bundle_;
  std::array<Output, 2> outputs_;
  ShimStarted started_;
  base::PidFd vmm_, shim_, runtime_;
  bool vmm_dead_ = false, shim_dead_ = false, runtime_dead_ = false;
  base::UniqueFd timer_;
  std::optional<BootTime> report_until_, drain_until_;
  std::optional<LaneEnd> report_;
  std::optional<LaneEnd> end_;
};

class MicrovmLane final : public Lane {
 public:
  MicrovmLane(MicrovmOptions options, containerd::Client& client) : options_(std::move(options)), client_(client) {}

  model::Inventory intended(const model::CellName& name) const override {
    const std::string id = name.marker();
    return {{ItemKind::kContainer, id, ""},
            {ItemKind::kTask, id, ""},
            {ItemKind::kProcess, "shim", ""},
            {ItemKind::kProcess, "vmm", ""},
            {ItemKind::kFile, bundle_of(id), ""}};
  }

  // QEMU itself, and under emulation its translation cache (the shim caps it at 64 MiB).
  std::uint64_t memory_overhead() const override { return (options_.emulated ? 192ULL : 128ULL) << 20U; }
  bool uses_containerd() const override { return true; }

  base::Result<std::unique_ptr<RunningCell>, StartFailure> start(CellPlan plan, base::Deadline deadline,
                                                                 OutputSink& /*sink*/) override {
    const std::string id = plan.name.marker();
    const std::string bundle = bundle_of(id);
    const std::string out = plan.folder + "/stdout";
    const std::string err = plan.folder + "/stderr";
    auto stdout_fifo = make_fifo(out);
    auto stderr_fifo = make_fifo(err);
    if (!stdout_fifo.ok() || !stderr_fifo.ok()) {
      const Error& error = stdout_fifo.ok() ? stderr_fifo.error() : stdout_fifo.error();
      return StartFailure{Reason::kCreateContainerError, error.message()};
    }
    auto cell = std::make_unique<MicrovmCell>(
        options_, client_, plan.cgroup, id, bundle,
        std::array<Output, 2>{Output{Stream::kStdout, std::move(stdout_fifo).value()},
                              Output{Stream::kStderr, std::move(stderr_fifo).value()}});

    std::optional<SecretServer> secrets;
    if (!plan.secrets.empty()) {
      auto server = SecretServer::create(plan.folder + kSecretsSocket);
      if (!server.ok()) {
        return StartFailure{Reason::kCreateContainerError, server.error().message()};
      }
      secrets.emplace(std::move(server).value());
    }
    containerd::Container container;
    container.id = id;
    container.runtime = kMicrovmRuntime;
    container.runtime_options = containerd::shim_options(options_.shim_config);
    container.spec_json = oci_spec(plan, options_.vmm_uid_base + plan.name.slot);
    const base::Until until(deadline, plan.cancel.stop());
    if (auto status = client_.create_container(container, until.capped(containerd::kMutateTimeout)); !status.ok()) {
      return failed(status.error(), Reason::kCreateContainerError, bundle, deadline);
    }
    const std::vector<containerd::Mount> rootfs{{"erofs", plan.image.rootfs_path(), {"ro"}}};
    auto created = client_.create_task(id, rootfs, {"", out, err}, until.capped(containerd::kTaskCreateTimeout));
    const auto vmm = note_vmm(plan, bundle);  // also after a failure: teardown kills by this identity
    if (!created.ok()) {
      return failed(created.error(), Reason::kVmmStartFailed, bundle, deadline);
    }
    // The guest boots, and no user code runs before start_task().
    auto box = vmm.ok() ? prove_box(*vmm, declared_box(plan), plan.cgroup) : base::Result<ProvenBox>(vmm.error().clone());
    if (!box.ok()) {
      return StartFailure{Reason::kVmmStartFailed, box.error().message()};
    }
    if (secrets.has_value()) {
      const auto shim = read_shim_pid(bundle);
      plan.on_secrets();
      const base::Status given = shim.ok() ? secrets->hand_over(plan.secrets, *shim, deadline) : base::Status(shim.error().clone());
      plan.secrets.clear();
      secrets.reset();
      if (!given.ok()) {
        return failed(given.error(), Reason::kCreateContainerError, bundle, deadline);
      }
    }
    if (plan.cancel.raised()) {
      return StartFailure{Reason::kNone, "cancelled before START"};
    }
    auto running = client_.start_task(id, until.capped(options_.boot_timeout + containerd::kTaskStartSlack));
    if (!running.ok()) {
      return failed(running.error(), Reason::kAgentUnreachable, bundle, deadline);
    }
    auto report = read_shim_started(bundle);
    if (!report.ok()) {
      return StartFailure{Reason::kVmmStartFailed, report.error().message()};
    }
    auto noted = plan.journal.created({ItemKind::kProcess, "shim", identity_text(report->shim)});
    if (noted.ok()) {
      noted = cell->adopt(std::move(report).value(), std::move(box).value());
    }
    if (!noted.ok()) {
      // The cell may have ended already: then its report says how, and the supervisor would only have read the same.
      return failed(noted.error(), Reason::kVmmCrashed, bundle, deadline);
    }
    return std::unique_ptr<RunningCell>(std::move(cell));
  }

 private:
  std::string bundle_of(const std::string& id) const {
    return options_.containerd_state + "/io.containerd.runtime.v2.task/" + options_.containerd_namespace + "/" + id;
  }

  static base::Result<base::UniqueFd> make_fifo(const std::string& path) {
    if (::mkfifo(path.c_str(), 0600) != 0) {
      return Error::from_errno("mkfifo " + path);
    }
    // Open for reading before the task exists, so that no byte is lost (cio/io_unix.go does the same).
    return base::open_file(path, O_RDONLY | O_NONBLOCK | O_NOFOLLOW);
  }

  static base::Result<base::ProcessId> note_vmm(const CellPlan& plan, const std::string& bundle) {
    auto vmm = read_vmm_pid(bundle);
    if (vmm.ok()) {
      // A ledger that cannot write ends the job at its next durable step; the kill by cgroup needs no journal.
      (void)plan.journal.created({ItemKind::kProcess, "vmm", identity_text(*vmm)});
    }
    return vmm;
  }

  [[nodiscard]] DeclaredBox declared_box(const CellPlan& plan) const {
    DeclaredBox box;
    box.uid = options_.vmm_uid_base + plan.name.slot;
    // Ours to hold, so both can be looked at; a failure leaves an identity that no namespace and no file has.
    if (auto network = base::file_id(plan.network.netns_fd()); network.ok()) {
      box.network = *network;
    }
    if (auto image = base::file_id(plan.image.rootfs_fd()); image.ok()) {
      box.images.push_back(*image);
    }
    if (plan.inputs != nullptr) {
      if (auto image = base::file_id(plan.inputs->fd()); image.ok()) {
        box.images.push_back(*image);
      }
    }
    box.kvm = !options_.emulated;
    return box;
  }

  static StartFailure failed(const Error& error, Reason reason, const std::string& bundle, base::Deadline deadline) {
    if (error.code() == Errc::kDeadlineExceeded && deadline.expired()) {
      return {Reason::kStartDeadlineExceeded, error.message()};
    }
    // The shim's own report tells a guest that never came up from a containerd that went away.
    if (auto end = read_shim_exit(bundle, std::nullopt); end.ok()) {
      return {Reason::kAgentUnreachable, end->message.empty() ? error.message() : end->message};
    }
    // Longer than its call may ever take: a containerd that hangs is as good as gone.
    if (error.code() == Errc::kUnavailable || error.code() == Errc::kDeadlineExceeded) {
      return {Reason::kRuntimeDied, error.message()};
    }
    return {reason, error.message()};
  }

  MicrovmOptions options_;
  containerd::Client& client_;
};

}  // namespace

std::unique_ptr<Lane> make_microvm_lane(MicrovmOptions options, containerd::Client& client) {
  return std::make_unique<MicrovmLane>(std::move(options), client);
}

}  // namespace cellrund::cell
