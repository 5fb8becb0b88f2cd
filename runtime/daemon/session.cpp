#include "daemon/session.hpp"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <limits>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "api/frame.hpp"
#include "base/log.hpp"

namespace cellrund::daemon {
namespace {

using base::Errc;
using base::Error;

constexpr std::size_t kUidLength = 36;
constexpr std::size_t kLogChunkBytes = 64UL * 1024;
constexpr std::size_t kOutputChunkBytes = 256UL * 1024;
// From the first piece of an archive to the last: what is not whole by then holds its room no longer.
constexpr base::Nanoseconds kUploadBudget = std::chrono::minutes(10);
constexpr std::uint32_t kDefaultListLimit = 100;
constexpr std::uint32_t kMaxListLimit = 1000;
// How long a followed job may be quiet before the peer and the stop flag are looked at again.
constexpr base::Nanoseconds kLookAround = std::chrono::milliseconds(500);

bool is_uid(const std::string& text) {
  return text.size() == kUidLength && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || c == '-';
         });
}

// One decision, whenever it was first seen.
using Told = std::tuple<std::string, std::uint8_t, std::string, std::uint16_t>;

// Leaves those that were not there last time. What has left the list since may be told once more, so that `told` stays as
// short as the list.
void keep_untold(std::vector<model::EgressDecision>& decisions, std::set<Told>& told) {
  std::set<Told> now;
  std::erase_if(decisions, [&](const model::EgressDecision& d) {
    const Told key(d.reason, d.protocol, d.destination, d.port);
    return !now.insert(key).second || told.contains(key);
  });
  told.swap(now);
}

}  // namespace

void Session::run() {
  const base::Nanoseconds idle = std::chrono::seconds(context_.limits.idle_seconds);
  const base::Nanoseconds whole = std::chrono::seconds(context_.limits.frame_seconds);
  while (!context_.stopping) {
    base::Result<std::optional<std::string>> frame = api::read_frame(fd_, api::kMaxRequestBytes, idle, whole);
    if (!frame) {
      // Too long, too slow, or with a descriptor: whatever it was to become, it was sent to be looked at, and the
      // record of dropped submissions counts it.
      if (frame.error().code() == Errc::kResourceExhausted || frame.error().code() == Errc::kPermissionDenied) {
        context_.node.count_dropped(peer_.uid, 1);
        (void)fail(frame.error());
      }
      return;
    }
    if (!frame->has_value()) {
      return;
    }
    base::Result<api::Request> request = api::decode_request(base::as_bytes(**frame));
    frame->reset();
    if (!request) {
      context_.node.count_dropped(peer_.uid, 1);
      (void)fail(request.error());
      return;
    }
    if (handle(*request) == Next::kClose) {
      return;
    }
  }
}

Session::Next Session::handle(const api::Request& request) {
  if (!std::holds_alternative<api::Upload>(request)) {
    upload_.reset();
  }
  return std::visit([this](const auto& call) { return on(call); }, request);
}

Session::Next Session::answer(const api::Response& response) {
  const std::string body = api::encode(response);
  if (body.size() > api::kMaxResponseBytes) {
    return fail(Error(Errc::kResourceExhausted, "the answer is longer than " + std::to_string(api::kMaxResponseBytes) +
                                                    " bytes"));
  }
  const base::Deadline deadline = base::Deadline::after(std::chrono::seconds(context_.limits.send_seconds));
  return api::write_frame(fd_, body, deadline).ok() ? Next::kContinue : Next::kClose;
}

Session::Next Session::fail(const Error& error, const std::string& uid) {
  api::Failure failure = api::failure_from(error);
  failure.uid = uid;
  return answer(failure);
}

bool Session::is_root() const noexcept { return peer_.uid == 0 || peer_.uid == ::geteuid(); }

cell::Viewer Session::viewer() const noexcept { return is_root() ? cell::Viewer() : cell::Viewer(peer_.uid); }

bool Session::may_see(const cell::JobView& job) const noexcept { return is_root() || job.owner_uid == peer_.uid; }

base::Result<cell::JobView> Session::own_job(const std::string& uid, std::string_view what) {
  const std::string where = std::string(what) + " " + base::log::quoted(uid, kUidLength);
  if (!is_uid(uid)) {
    return Error(Errc::kInvalidArgument, where + ": not a job uid");
  }
  std::optional<cell::JobView> job = context_.node.get(uid, viewer());
  if (!job) {
    return Error(Errc::kNotFound, where + ": no such job on this node");
  }
  if (!may_see(*job)) {
    return Error(Errc::kPermissionDenied, where + ": the job belongs to another user");
  }
  return std::move(*job);
}

api::Job Session::view(const cell::JobView& job) const {
  api::Job out;
  out.uid = job.uid;
  out.name = job.name;
  out.tenant = job.tenant;
  out.lane = job.lane;
  out.owner_uid = job.owner_uid;
  out.state = job.state;
  out.outcome.state = job.state;
  out.outcome.reason = job.outcome.reason;
  out.verdict = job.verdict;
  out.version = job.version;
  out.closed = job.closed;
  out.foreign = !may_see(job);
  if (!out.foreign) {
    out.image = job.image;
    out.spec_digest = job.spec_digest;
    out.outcome = job.outcome;
    out.evidence_digest = job.evidence_digest;
    out.timeline = job.timeline;
  }
  return out;
}

Session::Next Session::on(const api::Submit& request) {
  const std::int64_t now = base::Deadline::after(base::Nanoseconds(0)).monotonic_ns();
  if (!context_.refusals.reserve(peer_.uid, now)) {
    context_.node.count_dropped(peer_.uid, 1);
    (void)fail(Error(Errc::kResourceExhausted, "submit: too many refused submissions of this user: slow down"));
    return Next::kClose;
  }
  auto result = context_.node.submit(base::as_bytes(request.envelope), peer_);
  if (!result) {
    context_.refusals.give_back(peer_.uid);
    return fail(std::move(result).error().context("submit"));
  }
  if (const auto* refusal = std::get_if<model::Refusal>(&*result)) {
    return answer(api::failure_from(*refusal, {}));
  }
  context_.refusals.give_back(peer_.uid);
  const cell::Accepted& accepted = std::get<cell::Accepted>(*result);
  return answer(api::Submitted{accepted.uid, accepted.already_known});
}

Session::Next Session::on(const api::Get& request) {
  base::Result<cell::JobView> job = own_job(request.uid, "inspect");
  return job ? answer(view(*job)) : fail(job.error(), request.uid);
}

Session::Next Session::on(const api::List& request) {
  const std::uint32_t limit = request.limit == 0 ? kDefaultListLimit : std::min(request.limit, kMaxListLimit);
  api::JobList list;
  for (const cell::JobView& job : context_.node.list(limit)) {
    list.jobs.push_back(view(job));
    list.jobs.back().timeline.clear();  // a list is a line per job
  }
  return answer(list);
}

std::optional<Error> Session::never_closes(const cell::JobView& job) {
  if (!job.unsealed.empty()) {
    return Error(Errc::kDataLoss, "the job has ended, but its record could not be sealed: " + job.unsealed);
  }
  return context_.node.stopped();
}

bool Session::wait(const std::string& uid, std::uint64_t version, std::uint64_t log_bytes) {
  context_.node.wait_change(uid, version, log_bytes, base::Deadline::after(kLookAround));
  // A peer that only shut its sending side still reads; POLLHUP comes when both directions are closed (unix(7)).
  pollfd peer{fd_, POLLRDHUP, 0};
  return ::poll(&peer, 1, 0) >= 0 && (peer.revents & (POLLHUP | POLLERR)) == 0 && !context_.stopping;
}

Session::Next Session::on(const api::Watch& request) {
  base::Result<cell::JobView> job = own_job(request.uid, "watch");
  std::uint64_t seen = request.after_version;
  for (bool first = true;; first = false) {
    if (!job) {
      return fail(job.error(), request.uid);
    }
    if (first || job->version > seen) {
      if (answer(view(*job)) == Next::kClose) {
        return Next::kClose;
      }
      seen = std::max(seen, job->version);
    }
    if (job->closed) {
      return answer(api::End{});
    }
    if (const std::optional<Error> why = never_closes(*job)) {
      return fail(*why, request.uid);
    }
    if (!wait(request.uid, seen, std::numeric_limits<std::uint64_t>::max())) {
      return Next::kClose;
    }
    job = own_job(request.uid, "watch");
  }
}

// One reader's place in a job's output: a place in each stream, or one in the order of arrival.
class Session::LogReader {
 public:
  LogReader(cell::Node& node, const api::Logs& request) : node_(node), request_(request) {
    cursor_.offsets = {request.stdout_offset, request.stderr_offset};
    if (request.timestamps) {
      cursor_.offsets = {};
    }
  }

  // nullopt at the present end.
  base::Result<std::optional<api::LogChunk>> next() {
    if (request_.timestamps) {
      auto piece = CR_TRY(node_.read_log_piece(request_.uid, cursor_, kLogChunkBytes));
      if (!piece.has_value()) {
        return std::optional<api::LogChunk>();
      }
      return std::optional(api::LogChunk{name_of(piece->stream), piece->offset, std::move(piece->data), piece->wall_ns});
    }
    for (int tries = 0; tries < 2; ++tries) {
      const cell::Stream stream = stream_;
      stream_ = stream == cell::Stream::kStdout ? cell::Stream::kStderr : cell::Stream::kStdout;  // they take turns
      std::uint64_t& offset = cursor_.offsets[static_cast<std::size_t>(stream)];
      std::string data = CR_TRY(node_.read_log(request_.uid, stream, offset, kLogChunkBytes));
      if (!data.empty()) {
        const std::uint64_t at = offset;
        offset += data.size();
        return std::optional(api::LogChunk{name_of(stream), at, std::move(data)});
      }
    }
    return std::optional<api::LogChunk>();
  }

 private:
  static api::Stream name_of(cell::Stream stream) {
    return stream == cell::Stream::kStdout ? api::Stream::kStdout : api::Stream::kStderr;
  }

  cell::Node& node_;
  const api::Logs& request_;
  cell::LogCursor cursor_;
  cell::Stream stream_ = cell::Stream::kStdout;
};

Session::Next Session::on(const api::Logs& request) {
  LogReader reader(context_.node, request);
  for (;;) {
    // What is known before the reads: anything that grows later makes the wait return at once.
    base::Result<cell::JobView> job = own_job(request.uid, "logs");
    if (!job) {
      return fail(job.error(), request.uid);
    }
    const std::uint64_t total = context_.node.log_bytes(request.uid);
    while (!context_.stopping) {
      base::Result<std::optional<api::LogChunk>> chunk = reader.next();
      if (!chunk) {
        return fail(std::move(chunk).error().context("logs"), request.uid);
      }
      if (!chunk->has_value()) {
        break;
      }
      if (answer(std::move(**chunk)) == Next::kClose) {
        return Next::kClose;
      }
    }
    if (!request.follow || job->closed) {
      if (context_.node.log_was_cut(request.uid) && answer(api::LogChunk{.cut = true}) == Next::kClose) {
        return Next::kClose;
      }
      return answer(api::End{});
    }
    if (const std::optional<Error> why = never_closes(*job)) {
      return fail(*why, request.uid);
    }
    if (!wait(request.uid, job->version, total)) {
      return Next::kClose;
    }
  }
}

Session::Next Session::on(const api::Cancel& request) {
  base::Result<cell::JobView> job = own_job(request.uid, "cancel");
  if (!job) {
    return fail(job.error(), request.uid);
  }
  const bool by_operator = door_ == Door::kAdmin || (is_root() && job->owner_uid != peer_.uid);
  const base::Status done = context_.node.cancel(request.uid, by_operator);
  return done ? answer(api::Ack{}) : fail(done.error(), request.uid);
}

Session::Next Session::on(const api::GetEvidence& request) {
  base::Result<cell::JobView> job = own_job(request.uid, "evidence of");
  if (!job) {
    return fail(job.error(), request.uid);
  }
  base::Result<std::string> envelope = context_.node.evidence(request.uid, viewer());
  return envelope ? answer(api::EvidenceEnvelope{std::move(*envelope)}) : fail(envelope.error(), request.uid);
}

Session::Next Session::on(const api::GetFlows& request) {
  std::set<Told> told;
  for (;;) {
    const base::Result<cell::JobView> job = own_job(request.uid, "flows of");
    if (!job) {
      return fail(job.error(), request.uid);
    }
    base::Result<model::EgressFacts> egress = context_.node.flows(request.uid, viewer());
    const bool between = !egress && egress.error().code() == Errc::kFailedPrecondition;  // filter gone, record not there
    if (!egress && !(between && request.follow)) {
      return fail(egress.error(), request.uid);
    }
    if (!request.follow) {
      return answer(api::Flows{std::move(*egress)});
    }
    if (egress) {
      keep_untold(egress->decisions, told);
      if (!egress->decisions.empty() && answer(api::Flows{std::move(*egress)}) == Next::kClose) {
        return Next::kClose;
      }
    }
    if (job->closed) {
      return answer(api::End{});
    }
    if (const std::optional<Error> why = never_closes(*job)) {
      return fail(*why, request.uid);
    }
    if (!wait(request.uid, job->version, std::numeric_limits<std::uint64_t>::max())) {
      return Next::kClose;
    }
  }
}

Session::Next Session::on(const api::GetOutputs& request) {
  const base::Result<cell::JobView> job = own_job(request.uid, "outputs of");
  if (!job) {
    return fail(job.error(), request.uid);
  }
  base::Result<model::OutputFacts> facts = context_.node.outputs(request.uid);
  return facts ? answer(api::Outputs{std::move(*facts)}) : fail(facts.error(), request.uid);
}

Session::Next Session::on(const api::ReadOutput& request) {
  const base::Result<cell::JobView> job = own_job(request.uid, "outputs of");
  if (!job) {
    return fail(job.error(), request.uid);
  }
  const base::Result<cell::OutputSource> source = context_.node.open_output(request.uid, request.path);
  if (!source) {
    return fail(source.error(), request.uid);
  }
  for (std::uint64_t sent = 0; sent < source->file.size && !context_.stopping;) {
    std::string data(static_cast<std::size_t>(std::min<std::uint64_t>(kOutputChunkBytes, source->file.size - sent)), '\0');
    const ssize_t n = ::pread(source->data.get(), data.data(), data.size(), static_cast<off_t>(source->offset + sent));
    if (n <= 0) {
      return fail(n < 0 ? Error::from_errno("read the output") : Error(Errc::kDataLoss, "the stored output is too short"), request.uid);
    }
    data.resize(static_cast<std::size_t>(n));
    if (answer(api::OutputChunk{sent, std::move(data)}) == Next::kClose) {
      return Next::kClose;
    }
    sent += static_cast<std::uint64_t>(n);
  }
  return context_.stopping ? Next::kClose : answer(api::End{});
}

Session::Next Session::on(const api::GetCapacity& /*request*/) {
  const cell::CapacityView view = context_.node.capacity();
  api::Capacity out;
  out.cpu_millis_total = view.cpu_millis_total;
  out.cpu_millis_used = view.cpu_millis_used;
  out.memory_bytes_total = view.memory_bytes_total;
  out.memory_bytes_used = view.memory_bytes_used;
  out.cells_total = view.cells_total;
  out.cells_used = view.cells_used;
  out.cells_quarantined = view.cells_quarantined;
  out.queued = view.queued;
  out.queue_limit = view.queue_limit;
  out.draining = view.draining;
  out.held = view.held;
  out.lanes = view.lanes;
  out.accel = view.accel;
  return answer(out);
}

Session::Next Session::on(const api::SetDraining& request) {
  if (door_ != Door::kAdmin) {
    return fail(Error(Errc::kPermissionDenied, "drain: only root may do this, on the admin socket"));
  }
  context_.node.set_draining(request.draining);
  return answer(api::Ack{});
}

Session::Next Session::on(const api::UseKillSwitch& request) {
  if (door_ != Door::kAdmin) {
    return fail(Error(Errc::kPermissionDenied, "killswitch: only root may do this, on the admin socket"));
  }
  base::Result<cell::KillSwitchView> view = request.action == api::KillSwitchAction::kStatus
                                                ? context_.node.kill_switch()
                                                : context_.node.set_kill_switch(request.action == api::KillSwitchAction::kEngage);
  if (!view) {
    return fail(view.error());
  }
  api::KillSwitch out;
  out.engaged = view->engaged;
  for (cell::KillSwitchJob& job : view->jobs) {
    out.jobs.push_back({std::move(job.uid), std::move(job.name), job.state, std::move(job.network)});
  }
  return answer(out);
}

Session::Next Session::on(const api::Upload& request) {
  const bool goes_on = upload_ && upload_->upload.digest() == request.digest && upload_->upload.received() == request.offset;
  if (request.offset == 0 && !goes_on) {
    upload_.reset();
    auto begun = context_.node.begin_upload(request.digest, request.size, peer_.uid);
    if (!begun.ok()) {
      return fail(std::move(begun).error().context("upload"));
    }
    if (!begun->has_value()) {
      return answer(api::Uploaded{request.size, true});
    }
    upload_.emplace(OpenUpload{std::move(**begun), base::Deadline::after(kUploadBudget)});
  }
  if (!upload_ || upload_->upload.digest() != request.digest || upload_->upload.received() != request.offset) {
    upload_.reset();
    return fail(Error(Errc::kInvalidArgument, "upload: a piece that continues no upload of this connection"));
  }
  const auto take = [&]() -> base::Status {
    if (upload_->until.expired()) {
      return Error(Errc::kDeadlineExceeded, "inputs: the archive took longer than ten minutes");
    }
    CR_CHECK(upload_->upload.append(base::as_bytes(request.data)));
    return upload_->upload.whole() ? upload_->upload.finish() : base::ok();
  };
  if (auto taken = take(); !taken.ok()) {
    upload_.reset();
    return fail(std::move(taken).error().context("upload"));
  }
  const api::Uploaded reply{upload_->upload.received(), upload_->upload.whole()};
  if (reply.whole) {
    upload_.reset();
  }
  return answer(reply);
}

Session::Next Session::on(const api::Ping& /*request*/) {
  return answer(api::Pong{context_.version, context_.node_id});
}

}  // namespace cellrund::daemon
