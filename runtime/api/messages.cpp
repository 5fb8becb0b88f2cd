// The one file that includes the generated protobuf code.
#include "api/messages.hpp"

#include <cellrun/v1/node.pb.h>

#include <array>
#include <type_traits>

namespace cellrund::api {
namespace {

namespace pb = ::cellrun::v1;
using base::Errc;
using base::Error;

constexpr std::array kCodes{Errc::kUnknown,          Errc::kInvalidArgument,    Errc::kNotFound,
                            Errc::kAlreadyExists,    Errc::kPermissionDenied,   Errc::kResourceExhausted,
                            Errc::kFailedPrecondition, Errc::kUnimplemented,    Errc::kUnavailable,
                            Errc::kDeadlineExceeded, Errc::kCancelled,          Errc::kDataLoss};

// A code or a reason of a newer peer degrades to "unknown": the message still says what happened. States and verdicts
// do not: acting on a misread one would be wrong.
Errc code_of(const std::string& name) {
  for (const Errc code : kCodes) {
    if (to_string(code) == name) {
      return code;
    }
  }
  return Errc::kUnknown;
}

template <typename M>
base::Result<M> malformed(const char* what) {
  return Error(Errc::kInvalidArgument, std::string("malformed message: ") + what);
}

// --- Job

void fill(pb::Job& out, const Job& job) {
  out.set_uid(job.uid);
  out.set_name(job.name);
  out.set_tenant(job.tenant);
  out.set_lane(job.lane);
  out.set_image(job.image);
  out.set_spec_digest(job.spec_digest);
  out.set_owner_uid(job.owner_uid);
  out.set_state(std::string(to_string(job.state)));
  out.set_reason(std::string(to_string(job.outcome.reason)));
  if (job.outcome.exit_code) {
    out.set_exit_code(*job.outcome.exit_code);
  }
  if (job.outcome.signal) {
    out.set_signal(*job.outcome.signal);
  }
  out.set_message(job.outcome.message);
  if (job.verdict) {
    out.set_verdict(std::string(to_string(*job.verdict)));
  }
  out.set_evidence_digest(job.evidence_digest);
  for (const model::TimelineEntry& entry : job.timeline) {
    pb::TimelineEntry& line = *out.add_timeline();
    line.set_state(std::string(to_string(entry.state)));
    line.set_wall_time(base::format_rfc3339(entry.wall, true));
    line.set_boot_time_ns(entry.boot.ns);
    line.set_cause(entry.cause);
  }
  out.set_version(job.version);
  out.set_closed(job.closed);
  out.set_foreign(job.foreign);
}

base::Result<Job> read(const pb::Job& in) {
  Job job;
  job.uid = in.uid();
  job.name = in.name();
  job.tenant = in.tenant();
  job.lane = in.lane();
  job.image = in.image();
  job.spec_digest = in.spec_digest();
  job.owner_uid = in.owner_uid();
  const std::optional<model::State> state = model::parse_state(in.state());
  if (!state) {
    return malformed<Job>("unknown state");
  }
  job.state = *state;
  job.outcome.state = *state;
  job.outcome.reason = model::parse_reason(in.reason()).value_or(model::Reason::kNone);
  if (in.has_exit_code()) {
    job.outcome.exit_code = in.exit_code();
  }
  if (in.has_signal()) {
    job.outcome.signal = in.signal();
  }
  job.outcome.message = in.message();
  if (!in.verdict().empty()) {
    job.verdict = model::parse_verdict(in.verdict());
    if (!job.verdict) {
      return malformed<Job>("unknown verdict");
    }
  }
  job.evidence_digest = in.evidence_digest();
  for (const pb::TimelineEntry& line : in.timeline()) {
    model::TimelineEntry entry;
    const std::optional<model::State> at = model::parse_state(line.state());
    base::Result<base::WallTime> wall = base::parse_rfc3339(line.wall_time());
    if (!at || !wall) {
      return malformed<Job>("bad timeline entry");
    }
    entry.state = *at;
    entry.wall = *wall;
    entry.boot.ns = line.boot_time_ns();
    entry.cause = line.cause();
    job.timeline.push_back(std::move(entry));
  }
  job.version = in.version();
  job.closed = in.closed();
  job.foreign = in.foreign();
  return job;
}

// --- Flows and capacity

void fill(pb::Dns& out, const model::DnsFacts& dns) {
  out.set_tunnel_capable(dns.tunnel_capable);
  for (const model::DnsQuery& query : dns.queries) {
    pb::DnsQuery& line = *out.add_queries();
    line.set_seq(query.seq);
    line.set_boot_time_ns(query.boot_ns);
    line.set_name(query.name);
    line.set_type(query.type);
    line.set_verdict(query.verdict);
    for (const std::string& address : query.addresses) {
      line.add_addresses(address);
    }
    line.set_count(query.count);
  }
  out.set_seen(dns.seen);
  out.set_suppressed(dns.suppressed);
  out.set_counted(dns.counted);
  for (const std::string& upstream : dns.upstreams) {
    out.add_upstreams(upstream);
  }
  out.set_failure(dns.failure);
  for (const auto& [verdict, queries] : dns.counters) {
    pb::DnsCounter& line = *out.add_counters();
    line.set_verdict(verdict);
    line.set_queries(queries);
  }
}

model::DnsFacts read(const pb::Dns& in) {
  model::DnsFacts dns;
  dns.tunnel_capable = in.tunnel_capable();
  for (const pb::DnsQuery& line : in.queries()) {
    dns.queries.push_back({line.seq(), line.boot_time_ns(), line.name(), line.type(), line.verdict(),
                           {line.addresses().begin(), line.addresses().end()}, line.count()});
  }
  dns.seen = in.seen();
  dns.suppressed = in.suppressed();
  dns.counted = in.counted();
  dns.upstreams.assign(in.upstreams().begin(), in.upstreams().end());
  dns.failure = in.failure();
  for (const pb::DnsCounter& line : in.counters()) {
    dns.counters.emplace_back(line.verdict(), line.queries());
  }
  return dns;
}

void fill(pb::FlowsReply& out, const model::EgressFacts& egress) {
  out.set_policy_digest(egress.policy_digest);
  out.set_attach_hook(egress.attach_hook);
  out.set_canary_sent(egress.canary_sent);
  out.set_canary_blocked(egress.canary_blocked);
  out.set_canary_counted(egress.canary_counted);
  for (const auto& [reason, packets] : egress.counters) {
    pb::EgressCounter& counter = *out.add_counters();
    counter.set_reason(reason);
    counter.set_packets(packets);
  }
  for (const model::EgressDecision& decision : egress.decisions) {
    pb::EgressDecision& line = *out.add_decisions();
    line.set_seq(decision.seq);
    line.set_boot_time_ns(decision.boot_ns);
    line.set_protocol(decision.protocol);
    line.set_destination(decision.destination);
    line.set_port(decision.port);
    line.set_verdict(decision.verdict);
    line.set_reason(decision.reason);
    line.set_count(decision.count);
  }
  out.set_seen(egress.seen);
  out.set_suppressed(egress.suppressed);
  out.set_lost(egress.lost);
  out.set_counted(egress.counted);
  for (const std::string& relaxation : egress.relaxations) {
    out.add_relaxations(relaxation);
  }
  out.set_used_bytes(egress.used_bytes);
  out.set_used_packets(egress.used_packets);
  out.set_used_connections(egress.used_connections);
  out.set_quota_exhausted(egress.quota_exhausted);
  if (egress.dns.has_value()) {
    fill(*out.mutable_dns(), *egress.dns);
  }
}

base::Result<Flows> read(const pb::FlowsReply& in) {
  Flows flows;
  model::EgressFacts& egress = flows.egress;
  egress.policy_digest = in.policy_digest();
  egress.attach_hook = in.attach_hook();
  egress.canary_sent = in.canary_sent();
  egress.canary_blocked = in.canary_blocked();
  egress.canary_counted = in.canary_counted();
  for (const pb::EgressCounter& counter : in.counters()) {
    egress.counters.emplace_back(counter.reason(), counter.packets());
  }
  for (const pb::EgressDecision& line : in.decisions()) {
    if (line.protocol() > 255 || line.port() > 65535) {
      return malformed<Flows>("bad protocol or port");
    }
    model::EgressDecision decision;
    decision.seq = line.seq();
    decision.boot_ns = line.boot_time_ns();
    decision.protocol = static_cast<std::uint8_t>(line.protocol());
    decision.destination = line.destination();
    decision.port = static_cast<std::uint16_t>(line.port());
    decision.verdict = line.verdict();
    decision.reason = line.reason();
    decision.count = line.count();
    egress.decisions.push_back(std::move(decision));
  }
  egress.seen = in.seen();
  egress.suppressed = in.suppressed();
  egress.lost = in.lost();
  egress.counted = in.counted();
  egress.relaxations.assign(in.relaxations().begin(), in.relaxations().end());
  egress.used_bytes = in.used_bytes();
  egress.used_packets = in.used_packets();
  egress.used_connections = in.used_connections();
  egress.quota_exhausted = in.quota_exhausted();
  if (in.has_dns()) {
    egress.dns = read(in.dns());
  }
  return flows;
}

Outputs read(const pb::OutputsReply& in) {
  Outputs outputs;
  for (const pb::OutputFile& line : in.files()) {
    outputs.facts.files.push_back({line.path(), line.size(), line.sha256()});
  }
  for (const pb::RefusedOutput& line : in.refused()) {
    outputs.facts.refused.push_back({line.path(), line.why()});
  }
  outputs.facts.refused_count = in.refused_count();
  outputs.facts.manifest_digest = in.manifest_digest();
  outputs.facts.incomplete_because = in.incomplete_because();
  return outputs;
}

void fill(pb::CapacityReply& out, const Capacity& capacity) {
  out.set_cpu_millis_total(capacity.cpu_millis_total);
  out.set_cpu_millis_used(capacity.cpu_millis_used);
  out.set_memory_bytes_total(capacity.memory_bytes_total);
  out.set_memory_bytes_used(capacity.memory_bytes_used);
  out.set_cells_total(capacity.cells_total);
  out.set_cells_used(capacity.cells_used);
  out.set_cells_quarantined(capacity.cells_quarantined);
  out.set_queued(capacity.queued);
  out.set_queue_limit(capacity.queue_limit);
  out.set_draining(capacity.draining);
  out.set_held(capacity.held);
  for (const std::string& lane : capacity.lanes) {
    out.add_lanes(lane);
  }
  out.set_accel(capacity.accel);
}

Capacity read(const pb::CapacityReply& in) {
  Capacity capacity;
  capacity.cpu_millis_total = in.cpu_millis_total();
  capacity.cpu_millis_used = in.cpu_millis_used();
  capacity.memory_bytes_total = in.memory_bytes_total();
  capacity.memory_bytes_used = in.memory_bytes_used();
  capacity.cells_total = in.cells_total();
  capacity.cells_used = in.cells_used();
  capacity.cells_quarantined = in.cells_quarantined();
  capacity.queued = in.queued();
  capacity.queue_limit = in.queue_limit();
  capacity.draining = in.draining();
  capacity.held = in.held();
  capacity.lanes.assign(in.lanes().begin(), in.lanes().end());
  capacity.accel = in.accel();
  return capacity;
}

// --- One overload per message of the two oneofs

void put(pb::Request& out, const Submit& m) { out.mutable_submit()->set_envelope(m.envelope); }
void put(pb::Request& out, const Get& m) { out.mutable_get()->set_uid(m.uid); }
void put(pb::Request& out, const List& m) { out.mutable_list()->set_limit(m.limit); }
void put(pb::Request& out, const Watch& m) {
  out.mutable_watch()->set_uid(m.uid);
  out.mutable_watch()->set_after_version(m.after_version);
}
void put(pb::Request& out, const Logs& m) {
  pb::LogsRequest& logs = *out.mutable_logs();
  logs.set_uid(m.uid);
  logs.set_stdout_offset(m.stdout_offset);
  logs.set_stderr_offset(m.stderr_offset);
  logs.set_follow(m.follow);
  logs.set_timestamps(m.timestamps);
}
void put(pb::Request& out, const Cancel& m) { out.mutable_cancel()->set_uid(m.uid); }
void put(pb::Request& out, const GetEvidence& m) { out.mutable_evidence()->set_uid(m.uid); }
void put(pb::Request& out, const GetFlows& m) {
  out.mutable_flows()->set_uid(m.uid);
  out.mutable_flows()->set_follow(m.follow);
}
void put(pb::Request& out, const GetOutputs& m) { out.mutable_outputs()->set_uid(m.uid); }
void put(pb::Request& out, const ReadOutput& m) {
  out.mutable_output()->set_uid(m.uid);
  out.mutable_output()->set_path(m.path);
}
void put(pb::Request& out, const GetCapacity& /*m*/) { (void)out.mutable_capacity(); }
void put(pb::Request& out, const SetDraining& m) { out.mutable_drain()->set_draining(m.draining); }
void put(pb::Request& out, const UseKillSwitch& m) {
  constexpr std::array<const char*, 3> kActions{"status", "engage", "release"};
  out.mutable_kill_switch()->set_action(kActions.at(static_cast<std::size_t>(m.action)));
}
void put(pb::Request& out, const Ping& /*m*/) { (void)out.mutable_ping(); }
void put(pb::Request& out, const Upload& m) {
  pb::UploadRequest& upload = *out.mutable_upload();
  upload.set_digest(m.digest);
  upload.set_size(m.size);
  upload.set_offset(m.offset);
  upload.set_data(m.data);
}

void put(pb::Response& out, const Failure& m) {
  pb::Error& error = *out.mutable_error();
  error.set_code(std::string(to_string(m.code)));
  error.set_reason(std::string(to_string(m.reason)));
  error.set_message(m.message);
  error.set_hint(m.hint);
  error.set_retryable(m.retryable);
  error.set_field(m.field);
  error.set_uid(m.uid);
}
void put(pb::Response& out, const Submitted& m) {
  out.mutable_submit()->set_uid(m.uid);
  out.mutable_submit()->set_already_known(m.already_known);
}
void put(pb::Response& out, const Job& m) { fill(*out.mutable_job(), m); }
void put(pb::Response& out, const JobList& m) {
  pb::JobList& list = *out.mutable_jobs();
  for (const Job& job : m.jobs) {
    fill(*list.add_jobs(), job);
  }
}
void put(pb::Response& out, const LogChunk& m) {
  pb::LogChunk& chunk = *out.mutable_log();
  chunk.set_stream(m.stream == Stream::kStdout ? pb::STREAM_STDOUT : pb::STREAM_STDERR);
  chunk.set_offset(m.offset);
  chunk.set_data(m.data);
  chunk.set_wall_ns(m.wall_ns);
  chunk.set_cut(m.cut);
}
void put(pb::Response& out, const End& /*m*/) { (void)out.mutable_end(); }
void put(pb::Response& out, const Ack& /*m*/) { (void)out.mutable_ack(); }
void put(pb::Response& out, const EvidenceEnvelope& m) { out.mutable_evidence()->set_envelope(m.envelope); }
void put(pb::Response& out, const Flows& m) { fill(*out.mutable_flows(), m.egress); }
void put(pb::Response& out, const Outputs& m) {
  pb::OutputsReply& reply = *out.mutable_outputs();
  for (const model::OutputFile& file : m.facts.files) {
    pb::OutputFile& line = *reply.add_files();
    line.set_path(file.path);
    line.set_size(file.size);
    line.set_sha256(file.sha256);
  }
  for (const model::RefusedOutput& refused : m.facts.refused) {
    pb::RefusedOutput& line = *reply.add_refused();
    line.set_path(refused.path);
    line.set_why(refused.why);
  }
  reply.set_refused_count(m.facts.refused_count);
  reply.set_manifest_digest(m.facts.manifest_digest);
  reply.set_incomplete_because(m.facts.incomplete_because);
}
void put(pb::Response& out, const OutputChunk& m) {
  out.mutable_output()->set_offset(m.offset);
  out.mutable_output()->set_data(m.data);
}
void put(pb::Response& out, const Capacity& m) { fill(*out.mutable_capacity(), m); }
void put(pb::Response& out, const KillSwitch& m) {
  pb::KillSwitchReply& reply = *out.mutable_kill_switch();
  reply.set_engaged(m.engaged);
  for (const KillSwitch::Job& job : m.jobs) {
    pb::KillSwitchJob& line = *reply.add_jobs();
    line.set_uid(job.uid);
    line.set_name(job.name);
    line.set_state(std::string(model::to_string(job.state)));
    line.set_network(job.network);
  }
}
void put(pb::Response& out, const Uploaded& m) {
  out.mutable_upload()->set_received(m.received);
  out.mutable_upload()->set_whole(m.whole);
}
void put(pb::Response& out, const Pong& m) {
  out.mutable_ping()->set_version(m.version);
  out.mutable_ping()->set_node_id(m.node_id);
}

template <typename Message, typename Variant>
std::string encode_as(const Variant& value) {
  Message message;
  std::visit([&message](const auto& m) { put(message, m); }, value);
  return message.SerializeAsString();
}

}  // namespace

Failure failure_from(const base::Error& error) {
  Failure failure;
  failure.code = error.code();
  failure.message = error.message();
  failure.retryable = error.code() == Errc::kUnavailable || error.code() == Errc::kDeadlineExceeded ||
                      error.code() == Errc::kResourceExhausted;
  return failure;
}

Failure failure_from(const model::Refusal& refusal, std::string uid) {
  using model::Reason;
  Failure failure;
  failure.reason = refusal.reason;
  failure.message = refusal.message;
  failure.hint = refusal.hint;
  failure.field = refusal.field;
  failure.uid = std::move(uid);
  switch (refusal.reason) {
    case Reason::kSchemaInvalid: case Reason::kUnsupportedField: case Reason::kImageNotPinned:
      failure.code = Errc::kInvalidArgument;
      break;
    case Reason::kNoCapacity: case Reason::kNodeDraining: case Reason::kNodeQuarantined:
      failure.code = Errc::kUnavailable;
      failure.retryable = true;
      break;
    case Reason::kInputsNotFound: failure.code = Errc::kNotFound; break;
    case Reason::kReplayed: failure.code = Errc::kAlreadyExists; break;
    case Reason::kLaneUnavailable: case Reason::kExpired: case Reason::kNotYetValid: case Reason::kWrongAudience:
    case Reason::kKillSwitchEngaged:
      failure.code = Errc::kFailedPrecondition;
      break;
    default: failure.code = Errc::kPermissionDenied; break;
  }
  return failure;
}

std::string encode(const Request& request) { return encode_as<pb::Request>(request); }
std::string encode(const Response& response) { return encode_as<pb::Response>(response); }

base::Result<Request> decode_request(base::BytesView bytes) {
  pb::Request in;
  if (!in.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return malformed<Request>("not a request");
  }
  switch (in.call_case()) {
    case pb::Request::kSubmit: return Request(Submit{std::move(*in.mutable_submit()->mutable_envelope())});
    case pb::Request::kGet: return Request(Get{in.get().uid()});
    case pb::Request::kList: return Request(List{in.list().limit()});
    case pb::Request::kWatch: return Request(Watch{in.watch().uid(), in.watch().after_version()});
    case pb::Request::kLogs:
      return Request(Logs{in.logs().uid(), in.logs().stdout_offset(), in.logs().stderr_offset(), in.logs().follow(),
                          in.logs().timestamps()});
    case pb::Request::kCancel: return Request(Cancel{in.cancel().uid()});
    case pb::Request::kEvidence: return Request(GetEvidence{in.evidence().uid()});
    case pb::Request::kFlows: return Request(GetFlows{in.flows().uid(), in.flows().follow()});
    case pb::Request::kOutputs: return Request(GetOutputs{in.outputs().uid()});
    case pb::Request::kOutput: return Request(ReadOutput{in.output().uid(), in.output().path()});
    case pb::Request::kCapacity: return Request(GetCapacity{});
    case pb::Request::kDrain: return Request(SetDraining{in.drain().draining()});
    case pb::Request::kKillSwitch: {
      const std::string& action = in.kill_switch().action();
      if (action != "status" && action != "engage" && action != "release") {
        return malformed<Request>("unknown action of the kill switch");
      }
      return Request(UseKillSwitch{action == "engage"    ? KillSwitchAction::kEngage
                                   : action == "release" ? KillSwitchAction::kRelease
                                                         : KillSwitchAction::kStatus});
    }
    case pb::Request::kPing: return Request(Ping{});
    case pb::Request::kUpload: {
      pb::UploadRequest& upload = *in.mutable_upload();
      return Request(Upload{upload.digest(), upload.size(), upload.offset(), std::move(*upload.mutable_data())});
    }
    case pb::Request::CALL_NOT_SET: break;
  }
  return malformed<Request>("it holds no call that this version knows");
}

base::Result<Response> decode_response(base::BytesView bytes) {
  pb::Response in;
  if (!in.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return malformed<Response>("not a response");
  }
  switch (in.result_case()) {
    case pb::Response::kError: {
      const pb::Error& error = in.error();
      return Response(Failure{code_of(error.code()), model::parse_reason(error.reason()).value_or(model::Reason::kNone),
                              error.message(), error.hint(), error.retryable(), error.field(), error.uid()});
    }
    case pb::Response::kSubmit: return Response(Submitted{in.submit().uid(), in.submit().already_known()});
    case pb::Response::kJob: return Response(CR_TRY(read(in.job())));
    case pb::Response::kJobs: {
      JobList list;
      for (const pb::Job& job : in.jobs().jobs()) {
        list.jobs.push_back(CR_TRY(read(job)));
      }
      return Response(std::move(list));
    }
    case pb::Response::kLog: {
      pb::LogChunk& chunk = *in.mutable_log();
      if (chunk.stream() != pb::STREAM_STDOUT && chunk.stream() != pb::STREAM_STDERR) {
        return malformed<Response>("unknown stream");
      }
      return Response(LogChunk{chunk.stream() == pb::STREAM_STDOUT ? Stream::kStdout : Stream::kStderr, chunk.offset(),
                               std::move(*chunk.mutable_data()), chunk.wall_ns(), chunk.cut()});
    }
    case pb::Response::kEnd: return Response(End{});
    case pb::Response::kAck: return Response(Ack{});
    case pb::Response::kEvidence: return Response(EvidenceEnvelope{std::move(*in.mutable_evidence()->mutable_envelope())});
    case pb::Response::kFlows: return Response(CR_TRY(read(in.flows())));
    case pb::Response::kOutputs: return Response(read(in.outputs()));
    case pb::Response::kOutput:
      return Response(OutputChunk{in.output().offset(), std::move(*in.mutable_output()->mutable_data())});
    case pb::Response::kCapacity: return Response(read(in.capacity()));
    case pb::Response::kKillSwitch: {
      KillSwitch reply;
      reply.engaged = in.kill_switch().engaged();
      for (const pb::KillSwitchJob& job : in.kill_switch().jobs()) {
        const auto state = model::parse_state(job.state());
        if (!state.has_value()) {
          return malformed<Response>("unknown state");
        }
        reply.jobs.push_back({job.uid(), job.name(), *state, job.network()});
      }
      return Response(std::move(reply));
    }
    case pb::Response::kPing: return Response(Pong{in.ping().version(), in.ping().node_id()});
    case pb::Response::kUpload: return Response(Uploaded{in.upload().received(), in.upload().whole()});
    case pb::Response::RESULT_NOT_SET: break;
  }
  return malformed<Response>("it holds no result that this version knows");
}

}  // namespace cellrund::api
