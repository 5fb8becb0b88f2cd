// The messages of proto/cellrun/v1/node.proto as plain values, and their encoding. Protobuf stays behind this header.
// Decoding is total: any byte string gives a message or an error, never a crash; unknown enumerators and states that
// this version does not know are errors.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/file.hpp"
#include "base/result.hpp"
#include "model/evidence.hpp"
#include "model/outcome.hpp"

namespace cellrund::api {

struct Submit {
  std::string envelope;
};
struct Get {
  std::string uid;
};
struct List {
  std::uint32_t limit = 0;
};
struct Watch {
  std::string uid;
  std::uint64_t after_version = 0;
};
struct Logs {
  std::string uid;
  std::uint64_t stdout_offset = 0, stderr_offset = 0;
  bool follow = false;
  bool timestamps = false;  // pieces in order of arrival, from the start
};
struct Cancel {
  std::string uid;
};
struct GetEvidence {
  std::string uid;
};
struct GetFlows {
  std::string uid;
  bool follow = false;
};
struct GetOutputs {
  std::string uid;
};
struct ReadOutput {
  std::string uid, path;
};
struct GetCapacity {};
struct SetDraining {
  bool draining = false;
};
enum class KillSwitchAction { kStatus, kEngage, kRelease };
struct UseKillSwitch {
  KillSwitchAction action = KillSwitchAction::kStatus;
};
struct Ping {};
struct Upload {
  std::string digest;
  std::uint64_t size = 0, offset = 0;
  std::string data;
};
// Of `data`, so that a request with its framing stays below kMaxRequestBytes.
inline constexpr std::size_t kMaxUploadPiece = std::size_t{512} << 10U;
using Request =
    std::variant<Submit, Get, List, Watch, Logs, Cancel, GetEvidence, GetFlows, GetOutputs, ReadOutput, GetCapacity, SetDraining,
                 UseKillSwitch, Ping, Upload>;

// {code, reason, message, hint, retryable, field, uid} of cellrun(1).
struct Failure {
  base::Errc code = base::Errc::kUnknown;
  model::Reason reason = model::Reason::kNone;  // of a refused submission
  std::string message;
  std::string hint;
  bool retryable = false;
  std::string field;
  std::string uid;
};
[[nodiscard]] Failure failure_from(const base::Error& error);
[[nodiscard]] Failure failure_from(const model::Refusal& refusal, std::string uid);

struct Submitted {
  std::string uid;
  bool already_known = false;
};
struct Job {
  std::string uid, name, tenant, lane, image, spec_digest;
  std::uint32_t owner_uid = 0;
  model::State state = model::State::kAccepted;
  model::Outcome outcome;
  std::optional<model::Verdict> verdict;
  std::string evidence_digest;
  std::vector<model::TimelineEntry> timeline;
  std::uint64_t version = 0;
  bool closed = false;
  bool foreign = false;
};
struct JobList {
  std::vector<Job> jobs;
};
enum class Stream { kStdout, kStderr };
struct LogChunk {
  Stream stream = Stream::kStdout;
  std::uint64_t offset = 0;
  std::string data;
  std::int64_t wall_ns = 0;  // with Logs::timestamps
  bool cut = false;          // without data, and the last: the job's log was full
};
struct End {};
struct Ack {};
struct EvidenceEnvelope {
  std::string envelope;
};
struct Flows {
  model::EgressFacts egress;  // the fields that node.proto carries
};
struct Outputs {
  model::OutputFacts facts;
};
struct OutputChunk {
  std::uint64_t offset = 0;
  std::string data;
};
struct Capacity {
  std::uint64_t cpu_millis_total = 0, cpu_millis_used = 0;
  std::uint64_t memory_bytes_total = 0, memory_bytes_used = 0;
  std::uint64_t cells_total = 0, cells_used = 0, cells_quarantined = 0, queued = 0, queue_limit = 0;
  bool draining = false;
  std::string held;  // why the first of the queue waits although there is capacity
  std::vector<std::string> lanes;
  std::string accel;
};
struct KillSwitch {
  struct Job {
    std::string uid, name;
    model::State state = model::State::kAccepted;
    std::string network;
  };
  bool engaged = false;
  std::vector<Job> jobs;
};
struct Uploaded {
  std::uint64_t received = 0;
  bool whole = false;
};
struct Pong {
  std::string version, node_id;
};
using Response =
    std::variant<Failure, Submitted, Job, JobList, LogChunk, End, Ack, EvidenceEnvelope, Flows, Outputs, OutputChunk, Capacity,
                 KillSwitch, Pong, Uploaded>;

[[nodiscard]] std::string encode(const Request& request);
[[nodiscard]] std::string encode(const Response& response);
base::Result<Request> decode_request(base::BytesView bytes);
base::Result<Response> decode_response(base::BytesView bytes);

}  // namespace cellrund::api
