#include "cell/pipeline.hpp"

#include <algorithm>
#include <functional>
#include <utility>

#include "base/log.hpp"
#include "cell/closing.hpp"
#include "cell/limits_hit.hpp"
#include "cell/log_store.hpp"
#include "cell/output_store.hpp"
#include "cell/outputs.hpp"
#include "cell/record.hpp"
#include "cell/supervise.hpp"
#include "image/resolve.hpp"

namespace cellrund::cell {
namespace {

using model::ItemKind;
using model::Outcome;
using model::Reason;
using model::State;

Outcome failure(Reason reason, std::string message) {
  return {.state = model::terminal_state(reason), .reason = reason, .exit_code = {}, .signal = {}, .message = std::move(message)};
}

bool ended_by_itself(const Outcome& outcome) {
  return outcome.reason == Reason::kCompleted || outcome.reason == Reason::kError || outcome.reason == Reason::kSignaled;
}

// What the wall clock showed then, by what it shows now.
base::WallTime wall_of(base::BootTime then) {
  constexpr std::int64_t kSecond = 1'000'000'000;
  const base::WallTime now = base::WallTime::now();
  const std::int64_t ns = now.seconds * kSecond + now.nanos - (base::BootTime::now() - then).count();
  base::WallTime out = now;
  out.seconds = ns / kSecond;
  out.nanos = static_cast<decltype(out.nanos)>(ns % kSecond);
  return out;
}

// Output goes to the job's log; whoever follows is woken. `at_limit` is called once, for the first output that is dropped.
class LogSink final : public OutputSink {
 public:
  LogSink(LogStore& logs, JobTable& table, const std::string& uid, std::function<void()> at_limit)
      : logs_(logs), table_(table), uid_(uid), at_limit_(std::move(at_limit)) {}
  void write(Stream stream, base::BytesView bytes) override {
    if (auto stored = logs_.append(stream, bytes); !stored.ok() && !failed_) {
      failed_ = true;  // the job runs on, its record says that output was lost
      base::log::warn("cell=" + uid_ + " step=log error=" + base::log::quoted(stored.error().message()) + ", ignoring");
    }
    if (logs_.bytes() != told_) {  // a flood that is dropped wakes nobody
      told_ = logs_.bytes();
      table_.set_log_bytes(uid_, told_);
    }
    if (logs_.truncated() && at_limit_) {
      std::exchange(at_limit_, nullptr)();
    }
  }
  [[nodiscard]] bool failed() const noexcept { return failed_; }

 private:
  LogStore& logs_;
  JobTable& table_;
  const std::string& uid_;
  std::function<void()> at_limit_;
  std::uint64_t told_ = 0;
  bool failed_ = false;
};

// What is alive between the forward steps and the way back. Everything here holds descriptors only.
struct Live {
  std::optional<host::Cgroup> cgroup;
  std::optional<model::PreparedImage> image;
  std::optional<model::PreparedInputs> inputs;
  std::optional<netpolicy::NetworkedCell> network;
  std::unique_ptr<model::Journal> journal;
  std::unique_ptr<OutputCollector> outputs;
  std::unique_ptr<RunningCell> cell;
};

class Cell {
 public:
  Cell(Services& services, JobTicket& ticket)
      : services_(services), ticket_(ticket), spec_(ticket.job.spec()), uid_(spec_.metadata.uid),
        record_(services, uid_, std::move(ticket.evidence)) {}

  void run() {
    record_.enter(State::kQueued, "waiting for capacity");
    auto turn = ticket_.place.wait(ticket_.start_by, ticket_.cancel->raised());
    if (!turn.ok()) {
      const bool cancelled = ticket_.cancel->raised();
      const std::string because = ticket_.place.held().empty() ? "" : ": " + ticket_.place.held();
      (void)record_.close(failure(cancelled ? reason_of(ticket_.cancel->cause()) : turn.error(),
                                  cancelled ? "cancelled while it waited for capacity" : "no capacity became free in time" + because),
                          std::nullopt);
      return;
    }
    admit::Ticket slot = std::move(turn).value();
    name_ = model::CellName{services_.tag, uid_, slot.slot()};

    Live live;
    Outcome outcome;
    auto logs = LogStore::create(log_folder(services_.paths.state, uid_), spec_.logs.max_bytes);
    if (!logs.ok()) {
      outcome = failure(Reason::kCreateContainerError, logs.error().message());
    } else {
      LogSink sink(*logs, services_.table, uid_, [this] { log_limit(); });
      auto up = bring_up(live, sink);
      services_.router.replenish();
      outcome = up.ok() ? watch(live, sink) : std::move(up).error();
      if (logs->truncated()) {
        outcome = with_log_limit(std::move(outcome));
      }
      if (live.cell != nullptr && live.outputs != nullptr) {
        take_outputs(*live.outputs);
      }
      if (live.network.has_value()) {
        outcome = final_account(*live.network, std::move(outcome));
      }
      if (live.cgroup.has_value()) {
        outcome = resource_account(*live.cgroup, std::move(outcome));
      }
      if (auto facts = logs->finish(); facts.ok()) {
        record_.facts().logs = std::move(facts).value();
      } else {
        record_.facts().gaps.push_back("logs: " + facts.error().message());
      }
      if (sink.failed()) {
        record_.facts().gaps.push_back("logs: some output could not be stored");
      }
    }
    live = Live{};  // an open descriptor would keep the namespace alive and the scan from being CLEAN
    (void)close_cell(services_, record_, name_, outcome, services_.facts.boot_id, &slot);
    leave_result();
  }

 private:
  // Forward. On failure the outcome that the job ends with.
  base::Result<base::Unit, Outcome> bring_up(Live& live, LogSink& sink) {
    record_.enter(State::kPreparing, std::string(model::to_string(ticket_.job.lane())));
    Lane& lane = *services_.lanes.at(ticket_.job.lane());

    auto image = services_.images.prepare(spec_.container.image, services_.content, {ticket_.start_by, ticket_.cancel->stop()});
    if (!image.ok()) {
      if (ticket_.cancel->raised()) {
        return failure(reason_of(ticket_.cancel->cause()), "cancelled while its image was prepared");
      }
      return failure(image.error().reason, image.error().message);
    }
    live.image = std::move(image).value();
    record_.facts().image = model::ImageFacts{.ref = live.image->ref().text(),
                                              .digest = live.image->ref().digest,
                                              .rootfs_digest = live.image->rootfs_digest()};
    CR_CHECK(prepare_inputs(live));
    auto process = image::resolve_process(live.image->config(), spec_.container);
    if (!process.ok()) {
      return failure(Reason::kImageInvalid, process.error().message());
    }
    if (auto stop = check_start(); stop.has_value()) {
      return std::move(*stop);
    }

    live.journal = services_.ledger.journal_for(uid_);
    if (auto made = make_host_objects(live, lane); !made.ok()) {
      return failure(Reason::kCreateContainerError, made.error().message());
    }

    if (auto ready = start_collector(live); !ready.ok()) {
      return failure(Reason::kCreateContainerError, "outputs: " + ready.error().message());
    }

    auto network = services_.router.connect(name_, *live.journal,
                                            {.egress = spec_.egress,
                                             .relaxations = ticket_.job.relaxations(),
                                             .expect_blocked = spec_.expect_blocked,
                                             .on_alarm = [this](netpolicy::Alarm alarm, const std::string& why) { heed(alarm, why); }});
    if (!network.ok()) {
      if (ticket_.cancel->raised()) {  // an engaged kill switch is one way for the canary to fail
        return failure(reason_of(ticket_.cancel->cause()), network.error().message());
      }
      const bool unproven = network.error().code() == base::Errc::kFailedPrecondition;
      return failure(unproven ? Reason::kEgressUnproven : Reason::kEgressAttachFailed, network.error().message());
    }
    live.network = std::move(network).value();
    record_.facts().egress = live.network->facts();
    if (auto stop = check_start(); stop.has_value()) {
      return std::move(*stop);
    }

    auto secrets = services_.secrets.fetch(spec_.secrets);
    if (!secrets.ok()) {
      return failure(Reason::kCreateContainerError, secrets.error().message());
    }
    record_.enter(State::kStarting, "network armed");
    CellPlan plan{.name = name_,
                  .job = ticket_.job,
                  .image = *live.image,
                  .inputs = live.inputs.has_value() ? &*live.inputs : nullptr,
                  .network = *live.network,
                  .cgroup = *live.cgroup,
                  .process = {process->args, process->env, process->cwd},
                  .secrets = std::move(secrets).value(),
                  .on_secrets = [this] { note_secrets(); },
                  .folder = services_.paths.cell_folder(uid_),
                  .journal = *live.journal,
                  .cancel = *ticket_.cancel};
    auto started = lane.start(std::move(plan), ticket_.start_by, sink);
    if (!started.ok()) {
      if (ticket_.cancel->raised()) {
        return failure(reason_of(ticket_.cancel->cause()), started.error().message);
      }
      return failure(started.error().reason, started.error().message);
    }
    live.cell = std::move(started).value();
    record_.facts().lane = live.cell->facts();
    record_.enter(State::kRunning, "START sent");
    return base::Unit{};
  }

  void note_secrets() {
    for (const model::SecretRef& secret : spec_.secrets) {
      record_.facts().secrets.push_back({secret.name, base::WallTime::now(), std::nullopt});
    }
  }

  base::Result<base::Unit, Outcome> prepare_inputs(Live& live) {
    const auto plan = inputs_of(spec_);
    if (!plan.has_value()) {
      return base::Unit{};
    }
    auto inputs = services_.images.prepare_inputs(*plan, services_.inputs, {ticket_.start_by, ticket_.cancel->stop()});
    if (!inputs.ok()) {
      if (ticket_.cancel->raised()) {
        return failure(reason_of(ticket_.cancel->cause()), "cancelled while its inputs were prepared");
      }
      return failure(inputs.error().reason, inputs.error().message);
    }
    live.inputs = std::move(inputs).value();
    record_.facts().inputs = model::InputFacts{.task = plan->task.value_or(""),
                                               .workspace = plan->workspace.value_or(""),
                                               .image_digest = live.inputs->digest()};
    return base::Unit{};
  }

  base::Status make_host_objects(Live& live, const Lane& lane) {
    const std::string folder = services_.paths.cell_folder(uid_);
    model::Inventory intended = services_.cgroups.intended(name_.cgroup_path());
    intended.push_back({ItemKind::kFile, folder, ""});
    for (model::InventoryItem& item : lane.intended(name_)) {
      intended.push_back(std::move(item));
    }
    if (spec_.volumes.outputs.has_value()) {
      for (model::InventoryItem& item : OutputCollector::intended(folder)) {
        intended.push_back(std::move(item));
      }
    }
    CR_CHECK(live.journal->intend(intended));
    live.cgroup = CR_TRY(services_.cgroups.create(
        name_.cgroup_path(), {.memory_bytes = spec_.limits.memory_bytes + lane.memory_overhead(),
                              .pids = lane.uses_containerd() ? 0 : spec_.limits.pids + 1,  // cell-init is one more
                              .cpu_millis = spec_.limits.cpu_millis}));
    for (const model::InventoryItem& item : live.cgroup->items()) {
      CR_CHECK(live.journal->created(item));
    }
    CR_CHECK(base::make_dirs(folder, 0700));
    const base::FileId id = CR_TRY(base::file_id(folder));
    return live.journal->created({ItemKind::kFile, folder, std::to_string(id.dev) + ":" + std::to_string(id.ino)});
  }

  base::Status start_collector(Live& live) {
    if (!spec_.volumes.outputs.has_value()) {
      return base::ok();
    }
    const OutputCollector::Options options{.program = services_.paths.collector,
                                           .cell_folder = services_.paths.cell_folder(uid_),
                                           .job_folder = job_folder(services_.paths.state, uid_),
                                           .budget = *spec_.volumes.outputs};
    live.outputs = std::make_unique<OutputCollector>(CR_TRY(OutputCollector::start(options, *live.journal)));
    return base::ok();
  }

  // What the cell has handed over, however it ended.
  void take_outputs(OutputCollector& collector) {
    if (auto facts = collector.finish(); facts.ok()) {
      record_.facts().outputs = std::move(facts).value();
    } else {
      base::log::warn("cell=" + uid_ + " step=outputs error=" + base::log::quoted(facts.error().message(), 512));
      record_.facts().gaps.push_back("outputs: " + facts.error().message());
      record_.facts().incomplete_because = "the outputs could not be stored";
    }
  }

  // For whoever finds the outputs; the record is the truth, so a failure changes nothing.
  void leave_result() {
    const auto view = services_.table.get(uid_);
    if (!record_.facts().outputs.has_value() || !view.has_value() || !view->closed) {
      return;
    }
    if (auto written = write_result(job_folder(services_.paths.state, uid_), record_.facts(), view->evidence_digest); !written.ok()) {
      base::log::warn("cell=" + uid_ + " step=result error=" + base::log::quoted(written.error().message()) + ", ignoring");
    }
  }

  // On the warden's thread, while the network lives.
  void heed(netpolicy::Alarm alarm, const std::string& why) {
    base::log::warn("cell=" + uid_ + " step=watch-egress error=" + base::log::quoted(why) + ", ending the job");
    ticket_.cancel->raise(alarm == netpolicy::Alarm::kQuota ? CancelCause::kEgressQuota : CancelCause::kEgressUnproven);
  }

  // Between forward steps: has the job been cancelled, or its time to start run out?
  std::optional<Outcome> check_start() {
    if (ticket_.cancel->raised()) {
      return failure(reason_of(ticket_.cancel->cause()), "cancelled before it was started");
    }
    if (ticket_.start_by.expired()) {
      return failure(Reason::kStartDeadlineExceeded, "preparing took longer than startDeadlineSeconds");
    }
    return std::nullopt;
  }

  Outcome watch(Live& live, LogSink& sink) {
    Supervised done = supervise(*live.cell, sink,
                                {.spec = spec_,
                                 .watchdog = services_.watchdog,
                                 .cancel = *ticket_.cancel,
                                 .on_stopping = [&](std::string_view cause) { record_.enter(State::kStopping, cause); }});
    record_.facts().deadline = std::move(done.deadline);
    limits_hit_ = done.limits;
    // With its cell's end a secret is gone too; the lane may have withdrawn it before. Of a cell whose end nobody saw, the
    // teardown will say.
    for (model::SecretFacts& secret : record_.facts().secrets) {
      const auto early = std::find_if(done.revoked.begin(), done.revoked.end(),
                                      [&](const auto& revoked) { return revoked.first == secret.name; });
      if (early != done.revoked.end()) {
        secret.revoked = wall_of(early->second);
      } else if (done.ended.has_value()) {
        secret.revoked = wall_of(*done.ended);
      }
    }
    return std::move(done.outcome);
  }

  void log_limit() {
    if (spec_.logs.kill_on_limit) {
      ticket_.cancel->raise(CancelCause::kLogLimit);
    }
  }

  // A job may end by itself before anybody has stopped it for what it wrote.
  Outcome with_log_limit(Outcome outcome) const {
    if (spec_.logs.kill_on_limit && (ended_by_itself(outcome) || outcome.reason == Reason::kLogLimitExceeded)) {
      outcome.reason = Reason::kLogLimitExceeded;
      outcome.state = model::terminal_state(outcome.reason);
      outcome.message = "the job wrote more than spec.logs.maxBytes";
    }
    return outcome;
  }

  // What the cell's cgroup held it to and counted, before it is taken apart.
  Outcome resource_account(const host::Cgroup& cgroup, Outcome outcome) {
    const host::CgroupLimits& enforced = cgroup.enforced();
    const host::CgroupUsage usage = cgroup.usage();
    limits_hit_.host_oom_kills = usage.oom_kills;
    limits_hit_.host_pids_refused = usage.pids_refused;
    model::Evidence& facts = record_.facts();
    facts.enforced = {.cpu_millis = enforced.cpu_millis,
                      .memory_bytes = enforced.memory_bytes,
                      .pids = enforced.pids,
                      .ephemeral_storage_bytes = 0};
    facts.overhead_memory_bytes = services_.lanes.at(ticket_.job.lane())->memory_overhead();
    facts.peak = peak_of(usage);
    facts.limits_hit = limits_hit_;
    return with_limits(std::move(outcome), limits_hit_);
  }

  // The canary again. Whoever has cut the network before has ended the job for that reason, so only a frame that came
  // through, or that nobody counted, changes how it ended.
  model::EndCanary prove_end(const netpolicy::NetworkedCell& network, Outcome& outcome) {
    auto proof = services_.router.prove_end(network);
    if (!proof.ok()) {
      record_.facts().gaps.push_back("egress: the canary at the end: " + proof.error().message());
      return {.why = "it could not be tried: " + proof.error().message()};
    }
    if (proof->refuted) {
      outcome = failure(Reason::kEgressUnproven, "canary at the end: " + proof->canary.why);
    }
    return std::move(proof->canary);
  }

  // Read-back, canary and the final counters, before anything of the network is taken apart.
  Outcome final_account(const netpolicy::NetworkedCell& network, Outcome outcome) {
    model::EndCanary canary = prove_end(network, outcome);
    if (auto attached = network.verify_attached(); !attached.ok()) {
      record_.facts().gaps.push_back("egress: " + attached.error().message());
      outcome = failure(Reason::kEgressUnproven, attached.error().message());
    }
    if (auto facts = network.final_facts(); facts.ok()) {
      // A job may end by itself before anybody has seen that its quota was used up.
      if (facts->quota_exhausted && ended_by_itself(outcome)) {
        outcome.reason = Reason::kEgressQuotaExceeded;
        outcome.state = model::terminal_state(outcome.reason);
        outcome.message = "the job's egress quota was used up";
      }
      note_imbalance(*facts, record_.facts());
      if (facts->dns.has_value() && !facts->dns->failure.empty()) {
        record_.facts().gaps.push_back("egress: " + facts->dns->failure);
      }
      facts->canary_at_end = std::move(canary);
      record_.facts().egress = std::move(facts).value();
    } else {
      if (record_.facts().egress.has_value()) {
        record_.facts().egress->canary_at_end = std::move(canary);
      }
      record_.facts().gaps.push_back("egress: " + facts.error().message());
      record_.facts().incomplete_because = "the final egress counters could not be read";
    }
    return outcome;
  }

  Services& services_;
  JobTicket& ticket_;
  const model::JobSpec& spec_;
  std::string uid_;
  JobRecord record_;
  model::CellName name_;
  model::LimitFacts limits_hit_;
};

}  // namespace

std::optional<image::InputsPlan> inputs_of(const model::JobSpec& spec) {
  if (!spec.volumes.task.has_value() && !spec.volumes.workspace_seed.has_value()) {
    return std::nullopt;
  }
  return image::InputsPlan{.task = spec.volumes.task,
                           .workspace = spec.volumes.workspace_seed,
                           .uid = spec.container.security.run_as_user,
                           .gid = spec.container.security.run_as_group};
}

void run_cell(Services& services, JobTicket ticket) { Cell(services, ticket).run(); }

}  // namespace cellrund::cell
