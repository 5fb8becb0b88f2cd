#include "cell/node_impl.hpp"

#include <mutex>

#include "admit/trust.hpp"
#include "base/log.hpp"
#include "cell/closing.hpp"
#include "cell/log_store.hpp"
#include "cell/pipeline.hpp"
#include "cell/record.hpp"
#include "cell/sealed_record.hpp"
#include "crypto/digest.hpp"
#include "evidence/statement.hpp"

namespace cellrund::cell {
namespace {

using base::Errc;
using base::Error;
using model::Reason;
using model::Refusal;

constexpr std::chrono::seconds kDroppedRecordInterval{60};

}  // namespace

base::Result<std::unique_ptr<NodeImpl>> NodeImpl::create(Services& services, NodeOptions options) {
  admit::Admission admission(options.policy);
  KillSwitch held = CR_TRY(KillSwitch::open(services.paths.state, services.router));
  std::unique_ptr<NodeImpl> node(new NodeImpl(services, std::move(options), std::move(admission), std::move(held)));
  node->expiry_.load(services.ledger);
  node->housekeeper_ = std::jthread([raw = node.get()](const std::stop_token& stop) { raw->housekeeping(stop); });
  return node;
}

NodeImpl::~NodeImpl() { shutdown(); }

void NodeImpl::shutdown() {
  stopping_.store(true);
  draining_.store(true);
  std::map<std::string, Thread> threads;
  {
    auto held = threads_.lock();
    threads.swap(*held);
  }
  for (auto& [uid, thread] : threads) {
    if (auto flag = services_.table.cancel_flag(uid); flag != nullptr) {
      flag->raise(CancelCause::kShutdown);
    }
  }
  services_.capacity.wake();
  threads.clear();  // joins
  if (housekeeper_.joinable()) {
    housekeeper_.request_stop();
    wake_.notify_all();
    housekeeper_.join();
  }
}

std::optional<Refusal> NodeImpl::node_refuses() const {
  if (kill_switch_.engaged()) {
    return Refusal{Reason::kKillSwitchEngaged, "the node's kill switch is engaged",
                   "submit to another node, or as root, when it is safe again: cellrun killswitch release", ""};
  }
  if (stopping_.load() || draining_.load()) {
    return Refusal{Reason::kNodeDraining, "the node takes no new jobs", "submit to another node, or: cellrun undrain", ""};
  }
  return std::nullopt;
}

std::uint64_t NodeImpl::open_jobs_of(const std::string& signer_key_id) {
  auto open = open_.lock();
  std::uint64_t count = 0;
  for (const auto& [uid, signer] : *open) {
    count += signer == signer_key_id ? 1 : 0;
  }
  return count;
}

std::optional<Error> NodeImpl::stopped() {
  const auto why = services_.ledger.stopped();
  return why.has_value() ? std::optional(Error(Errc::kDataLoss, "the ledger has stopped: " + *why)) : std::nullopt;
}

std::vector<std::string> NodeImpl::open_uids() {
  auto open = open_.lock();
  std::vector<std::string> uids;
  for (const auto& [uid, signer] : *open) {
    uids.push_back(uid);
  }
  return uids;
}

NodeImpl::SubmitResult NodeImpl::submit(base::BytesView envelope, const model::PeerFacts& peer) {
  join_finished();
  if (auto why = stopped(); why.has_value()) {
    return std::move(*why);
  }
  model::RequestFacts request;
  request.peer = peer;
  // Read anew for each submission: what an operator adds or revokes holds from the next job on.
  auto trust = admit::TrustStore::load(options_.trust_dir);
  if (!trust.ok()) {
    request.spec_digest = crypto::digest_text(envelope);
    return refuse({Reason::kSignerNotTrusted, "no key is trusted: " + trust.error().message(),
                   "cellrun trust add KEY.pub --namespace NAME", ""}, std::move(request));
  }
  auto verified = job::Verifier::verify(envelope, trust->keyring(), options_.verify, base::WallTime::now());
  if (!verified.ok()) {
    job::Rejected& rejected = verified.error();
    // Expired, revoked, or whatever else has changed since these very bytes were accepted from this peer: that job is
    // the answer, and nothing new is run. Only a signature that is wrong in itself gets no answer but its refusal.
    if (rejected.refusal.reason != Reason::kSignatureInvalid) {
      if (auto known = CR_TRY(services_.ledger.accepted_uid(rejected.spec_digest, peer.uid)); known.has_value()) {
        return std::variant<Accepted, Refusal>(Accepted{std::move(*known), true});
      }
    }
    request.uid = rejected.uid;
    request.spec_digest = rejected.spec_digest;
    request.signer_key_id = rejected.signer_key_id;
    request.tenant = rejected.tenant;
    request.name = rejected.name;
    return refuse(std::move(rejected.refusal), std::move(request));
  }
  const model::JobSpec& spec = verified->spec();
  request.uid = spec.metadata.uid;
  request.spec_digest = verified->spec_digest();
  request.signer_key_id = verified->signer_key_id();
  request.tenant = spec.metadata.tenant;
  request.name = spec.metadata.name;
  request.verified_at = verified->verified_at();

  // One decision at a time: submissions side by side must not all find the same room under maxConcurrent, or the same
  // uid unused. It costs nothing, since each of them needs the ledger's one connection for its commit.
  const std::lock_guard deciding(deciding_);
  // The same bytes again are the same job, whatever the node's state is by now.
  if (const auto known = CR_TRY(services_.ledger.get(spec.metadata.uid)); known.has_value()) {
    if (known->job.spec_digest == verified->spec_digest()) {
      return std::variant<Accepted, Refusal>(Accepted{known->job.uid, true});
    }
    return refuse({Reason::kReplayed, "this uid was used by another jobspec on this node",
                   "give every job a uid of its own (cellrun keygen --uuid)", "metadata.uid"}, std::move(request));
  }
  if (auto refusal = node_refuses(); refusal.has_value()) {
    return refuse(std::move(*refusal), std::move(request));
  }
  const std::uint64_t open = open_jobs_of(verified->signer_key_id());
  auto admitted = admission_.admit(std::move(verified).value(), *trust, open);
  if (!admitted.ok()) {
    return refuse(std::move(admitted).error(), std::move(request));
  }
  if (auto refusal = services_.secrets.refusal(admitted->spec().secrets); refusal.has_value()) {
    return refuse(std::move(*refusal), std::move(request));
  }
  return accept(std::move(admitted).value(), envelope, peer);
}

NodeImpl::SubmitResult NodeImpl::accept(model::AdmittedJob job, base::BytesView envelope, const model::PeerFacts& peer) {
  const model::JobSpec& spec = job.spec();
  const std::string uid = spec.metadata.uid;
  model::RequestFacts request{.uid = uid,
                              .spec_digest = job.verified().spec_digest(),
                              .signer_key_id = job.verified().signer_key_id(),
                              .tenant = spec.metadata.tenant,
                              .name = spec.metadata.name,
                              .verified_at = job.verified().verified_at(),
                              .peer = peer};
  const auto lane = services_.lanes.find(job.lane());
  if (lane == services_.lanes.end()) {
    return refuse({Reason::kLaneUnavailable, "the lane is not running on this node", "cellrun capacity lists the lanes", "spec.lane"},
                  std::move(request));
  }
  std::optional<image::InputStore::Pin> inputs;
  if (const auto plan = inputs_of(spec); plan.has_value()) {
    auto pinned = services_.inputs.pin(plan->archives(), {plan->image_name()});
    if (!pinned.ok()) {
      return refuse({Reason::kInputsNotFound, "the job's files: " + pinned.error().message(),
                     "cellrun submit --task PATH --workspace PATH uploads them with the job", "spec.volumes"}, std::move(request));
    }
    inputs.emplace(std::move(pinned).value());
  }
  const base::Deadline start_by = base::Deadline::after(spec.start_deadline);
  auto place = services_.capacity.enter(
      {.cpu_millis = spec.limits.cpu_millis, .memory_bytes = spec.limits.memory_bytes + lane->second->memory_overhead()});
  if (!place.ok()) {
    return refuse(std::move(place).error(), std::move(request));
  }
  auto cancel = CR_TRY(CancelFlag::create());
  const model::TimelineEntry entry = timeline_entry(model::State::kAccepted, "verified and admitted");
  ledger::NewJob row{.uid = uid,
                     .spec_digest = request.spec_digest,
                     .name = request.name,
                     .tenant = request.tenant,
                     .lane = std::string(model::to_string(job.lane())),
                     .image = spec.container.image.text(),
                     .signer_key_id = request.signer_key_id,
                     .peer = peer,
                     .envelope = std::string(base::as_text(envelope))};
  switch (CR_TRY(services_.ledger.accept(row, entry))) {
    case ledger::Acceptance::kNew: break;
    case ledger::Acceptance::kSame: return std::variant<Accepted, Refusal>(Accepted{uid, true});
    case ledger::Acceptance::kReplayed:
      return refuse({Reason::kReplayed, "this uid was used by another jobspec on this node",
                     "give every job a uid of its own (cellrun keygen --uuid)", "metadata.uid"}, std::move(request));
  }
  JobView view;
  view.uid = uid;
  view.name = row.name;
  view.tenant = row.tenant;
  view.lane = row.lane;
  view.image = row.image;
  view.spec_digest = row.spec_digest;
  view.owner_uid = peer.uid;
  view.timeline.push_back(entry);
  services_.table.insert(std::move(view), cancel);
  (*open_.lock())[uid] = request.signer_key_id;

  model::Evidence evidence;
  evidence.node = services_.facts;
  evidence.request = std::move(request);
  evidence.spec = spec;
  evidence.timeline.push_back(entry);
  // A job that is accepted while shutdown() runs is not in its list: it is cancelled here.
  if (stopping_.load()) {
    cancel->raise(CancelCause::kShutdown);
  }
  if (kill_switch_.engaged()) {
    cancel->raise(CancelCause::kKillSwitch);
  }
  const std::chrono::seconds ttl = spec.ttl_after_finished;
  if (auto kept = expiry_.keep_ttl(uid, ttl); !kept.ok()) {
    base::log::warn("cell=" + uid + " step=ttl error=" + base::log::quoted(kept.error().message()) + ", ignoring: the default will hold");
  }
  auto held = threads_.lock();
  (*held)[uid].thread = std::jthread(
      [this, uid, ttl, ticket = JobTicket{std::move(job), std::move(place).value(), cancel, std::move(evidence), start_by,
                                          std::move(inputs)}]() mutable {
        run_cell(services_, std::move(ticket));
        if (const auto ended = services_.table.get(uid); ended.has_value() && ended->closed) {
          expiry_.closed(uid, base::WallTime::now(), ttl);
          wake_.notify_all();
        }
        (void)open_.lock()->erase(uid);
        auto threads = threads_.lock();
        if (const auto it = threads->find(uid); it != threads->end()) {
          it->second.finished = true;
        }
      });
  return std::variant<Accepted, Refusal>(Accepted{uid, false});
}

void NodeImpl::join_finished() {
  std::vector<std::jthread> done;
  {
    auto threads = threads_.lock();
    for (auto it = threads->begin(); it != threads->end();) {
      if (it->second.finished) {
        done.push_back(std::move(it->second.thread));
        it = threads->erase(it);
      } else {
        ++it;
      }
    }
  }
}

NodeImpl::SubmitResult NodeImpl::refuse(Refusal refusal, model::RequestFacts request) {
  model::Evidence evidence;
  evidence.node = services_.facts;
  evidence.outcome = {.state = model::State::kRejected, .reason = refusal.reason, .exit_code = {}, .signal = {}, .message = refusal.message};
  evidence.timeline.push_back(timeline_entry(model::State::kRejected, model::to_string(refusal.reason)));
  ledger::RefusalRow row;
  row.uid = request.uid;
  row.spec_digest = request.spec_digest;
  row.reason = refusal.reason;
  row.peer = request.peer;
  evidence.request = std::move(request);
  evidence::Sealed sealed = CR_TRY(evidence::seal(evidence, services_.node_key));
  row.envelope = std::move(sealed.envelope);
  row.digest = std::move(sealed.digest);
  CR_CHECK(services_.ledger.seal_refusal(row));
  base::log::info("step=submit outcome=REJECTED reason=" + std::string(model::to_string(refusal.reason)) +
                  " peer=" + std::to_string(row.peer.uid) + " message=" + base::log::quoted(refusal.message, 256));
  return std::variant<Accepted, Refusal>(std::move(refusal));
}

void NodeImpl::count_dropped(std::uint32_t peer_uid, std::uint64_t submissions) {
  dropped_.lock()->by_peer[peer_uid] += submissions;
}

void NodeImpl::seal_dropped(std::uint32_t peer_uid, std::uint64_t count) {
  model::Evidence evidence;
  evidence.node = services_.facts;
  evidence.request.peer.uid = peer_uid;
  evidence.refusals_sealed = count;
  evidence.outcome = {.state = model::State::kRejected, .reason = Reason::kPolicyDenied, .exit_code = {}, .signal = {},
                      .message = "submissions above the refusal budget of the peer"};
  evidence.timeline.push_back(timeline_entry(model::State::kRejected, "refusal budget"));
  auto sealed = evidence::seal(evidence, services_.node_key);
  auto status = sealed.ok() ? services_.ledger.seal_refusal({.uid = "",
                                                             .spec_digest = "",
                                                             .reason = Reason::kPolicyDenied,
                                                             .peer = evidence.request.peer,
                                                             .envelope = sealed->envelope,
                                                             .digest = sealed->digest})
                            : base::Status(std::move(sealed).error());
  if (!status.ok()) {
    base::log::error("step=seal-dropped error=" + base::log::quoted(status.error().message()));
  }
}

void NodeImpl::housekeeping(const std::stop_token& stop) {
  std::mutex pause;
  std::unique_lock lock(pause);
  base::Deadline next_count = base::Deadline::after(kDroppedRecordInterval);
  while (!stop.stop_requested()) {
    (void)wake_.wait_for(lock, stop, std::min(next_count.remaining(), expiry_.until_next(base::WallTime::now())), [] { return false; });
    expiry_.remove_due(base::WallTime::now());
    if (!next_count.expired() && !stop.stop_requested()) {
      continue;
    }
    next_count = base::Deadline::after(kDroppedRecordInterval);
    std::map<std::uint32_t, std::uint64_t> dropped;
    dropped.swap(dropped_.lock()->by_peer);
    for (const auto& [peer, count] : dropped) {
      seal_dropped(peer, count);
    }
    join_finished();
    if (auto collected = services_.inputs.collect(); !collected.ok()) {
      base::log::warn("step=collect-inputs error=" + base::log::quoted(collected.error().message()) + ", ignoring");
    }
  }
}

std::optional<JobView> NodeImpl::get(const std::string& uid, Viewer viewer) {
  if (auto live = services_.table.get(uid); live.has_value()) {
    return live;
  }
  auto row = services_.ledger.get(uid);
  if (row.ok() && row->has_value()) {
    return view_of(**row);
  }
  return refused(uid, viewer);
}

// A refused submission has no job, but whoever made it can ask for its record under the uid that it named.
std::optional<JobView> NodeImpl::refused(const std::string& uid, Viewer viewer) {
  auto record = services_.ledger.record(uid, viewer);
  if (!record.ok()) {
    return std::nullopt;
  }
  JobView view;
  view.uid = uid;
  view.owner_uid = record->owner_uid;
  view.state = model::State::kRejected;
  if (auto outcome = refusal_of_record(record->envelope); outcome.ok()) {
    view.outcome = std::move(outcome).value();
  }
  view.evidence_digest = record->digest;
  view.closed = true;
  return view;
}

std::vector<JobView> NodeImpl::list(std::size_t limit) {
  auto rows = services_.ledger.list(limit);
  std::vector<JobView> out;
  if (!rows.ok()) {
    return services_.table.list(limit);
  }
  for (const ledger::JobRow& row : *rows) {
    auto live = services_.table.get(row.job.uid);
    out.push_back(live.has_value() ? std::move(*live) : view_of(row));
  }
  return out;
}

void NodeImpl::wait_change(const std::string& uid, std::uint64_t seen, std::uint64_t log_bytes_seen, base::Deadline deadline) {
  services_.table.wait_change(uid, seen, log_bytes_seen, deadline);
}

std::uint64_t NodeImpl::log_bytes(const std::string& uid) { return stored_log_bytes(log_folder(services_.paths.state, uid)); }

base::Result<std::string> NodeImpl::read_log(const std::string& uid, Stream stream, std::uint64_t offset, std::size_t limit) {
  if (!get(uid, std::nullopt).has_value()) {
    return Error(Errc::kNotFound, "there is no job " + uid);
  }
  auto text = cell::read_log(log_folder(services_.paths.state, uid), stream, offset, limit);
  if (!text.ok() && text.error().code() == Errc::kNotFound) {
    return std::string();  // not started yet, or it never was
  }
  return text;
}

base::Result<std::optional<LogPiece>> NodeImpl::read_log_piece(const std::string& uid, LogCursor& cursor, std::size_t limit) {
  if (!get(uid, std::nullopt).has_value()) {
    return Error(Errc::kNotFound, "there is no job " + uid);
  }
  auto piece = cell::read_log_piece(log_folder(services_.paths.state, uid), cursor, limit);
  if (!piece.ok() && piece.error().code() == Errc::kNotFound) {
    return std::optional<LogPiece>();  // not started yet, or it never was
  }
  return piece;
}

bool NodeImpl::log_was_cut(const std::string& uid) { return cell::log_was_cut(log_folder(services_.paths.state, uid)); }

base::Status NodeImpl::cancel(const std::string& uid, bool by_operator) {
  if (auto flag = services_.table.cancel_flag(uid); flag != nullptr) {
    flag->raise(by_operator ? CancelCause::kOperator : CancelCause::kUser);
    services_.capacity.wake();
    return base::ok();
  }
  if (get(uid, std::nullopt).has_value()) {
    return base::ok();  // over already
  }
  return Error(Errc::kNotFound, "there is no job " + uid);
}

base::Result<std::string> NodeImpl::evidence(const std::string& uid, Viewer viewer) {
  if (const auto view = get(uid, viewer); view.has_value() && !view->closed) {
    return Error(Errc::kFailedPrecondition, "the job is not closed yet");
  }
  ledger::Record record = CR_TRY(services_.ledger.record(uid, viewer));
  return std::move(record.envelope);
}

base::Result<model::EgressFacts> NodeImpl::flows(const std::string& uid, Viewer viewer) {
  const auto view = get(uid, viewer);
  if (!view.has_value()) {
    return Error(Errc::kNotFound, "there is no job " + uid);
  }
  if (view->closed) {
    const ledger::Record record = CR_TRY(services_.ledger.record(uid, viewer));
    return egress_of_record(record.envelope);
  }
  const auto slot = slot_of(services_.tag, CR_TRY(services_.ledger.inventory(uid)));
  if (slot.has_value()) {
    auto facts = services_.router.flows({services_.tag, uid, *slot});
    if (facts.ok() || facts.error().code() != Errc::kNotFound) {
      return facts;
    }
  }
  switch (view->state) {
    case model::State::kAccepted: case model::State::kQueued: case model::State::kPreparing: case model::State::kStarting:
      return model::EgressFacts{};  // no network yet, so no attempt
    default:
      return Error(Errc::kFailedPrecondition, "the job has ended, and its record is not sealed yet");
  }
}

base::Result<KillSwitchView> NodeImpl::set_kill_switch(bool engaged) {
  base::Status done = kill_switch_.set(engaged);
  if (kill_switch_.engaged()) {
    // Also when the file could not be written: what the kernel has cut must not go on.
    for (const std::string& uid : open_uids()) {
      if (auto flag = services_.table.cancel_flag(uid); flag != nullptr) {
        flag->raise(CancelCause::kKillSwitch);
      }
    }
    services_.capacity.wake();
  }
  base::log::warn("step=kill-switch outcome=" + std::string(kill_switch_.engaged() ? "engaged" : "released"));
  CR_CHECK(std::move(done));
  return kill_switch();
}

base::Result<KillSwitchView> NodeImpl::kill_switch() {
  KillSwitchView out;
  out.engaged = CR_TRY(services_.router.kill_switch());
  for (const std::string& uid : open_uids()) {
    const auto view = services_.table.get(uid);
    if (!view.has_value()) {
      continue;
    }
    const auto slot = slot_of(services_.tag, CR_TRY(services_.ledger.inventory(uid)));
    out.jobs.push_back({uid, view->name, view->state,
                        slot.has_value() ? kill_switch_.truth_of({services_.tag, uid, *slot}) : "none"});
  }
  return out;
}

base::Result<std::string> NodeImpl::closed_folder(const std::string& uid) {
  const auto view = get(uid, std::nullopt);
  if (!view.has_value()) {
    return Error(Errc::kNotFound, "there is no job " + uid);
  }
  if (!view->closed) {
    return Error(Errc::kFailedPrecondition, "the job is not closed yet");
  }
  return job_folder(services_.paths.state, uid);
}

base::Result<model::OutputFacts> NodeImpl::outputs(const std::string& uid) {
  auto facts = read_outputs(CR_TRY(closed_folder(uid)));
  if (!facts.ok() && facts.error().code() == Errc::kNotFound) {
    return Error(Errc::kNotFound, "the job has no outputs: it asked for none, they have expired, or its record tells why");
  }
  return facts;
}

base::Result<OutputSource> NodeImpl::open_output(const std::string& uid, const std::string& path) {
  return cell::open_output(CR_TRY(closed_folder(uid)), path);
}

CapacityView NodeImpl::capacity() {
  const admit::CapacityUse use = services_.capacity.use();
  CapacityView view;
  view.cpu_millis_total = use.total.cpu_millis;
  view.cpu_millis_used = use.cpu_millis;
  view.memory_bytes_total = use.total.memory_bytes;
  view.memory_bytes_used = use.memory_bytes;
  view.cells_total = use.total.cells;
  view.cells_used = use.cells;
  view.cells_quarantined = use.quarantined;
  view.queued = use.queued;
  view.queue_limit = use.total.queue;
  view.draining = draining_.load();
  view.held = use.held;
  for (const auto& [lane, driver] : services_.lanes) {
    view.lanes.emplace_back(model::to_string(lane));
  }
  view.accel = options_.accel;
  return view;
}

}  // namespace cellrund::cell
