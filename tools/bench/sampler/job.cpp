#include "tools/bench/sampler/job.hpp"

#include <algorithm>
#include <optional>
#include <variant>

#include "api/client.hpp"
#include "api/frame.hpp"
#include "base/file.hpp"
#include "crypto/dsse.hpp"
#include "crypto/random.hpp"
#include "job/parse.hpp"

namespace cellrund::bench {
namespace {

using base::Deadline;
using base::Errc;
using base::Error;

constexpr std::size_t kMaxKey = 4096;
constexpr std::size_t kMaxOutput = 4096;
constexpr std::int64_t kValiditySeconds = 3600;

base::Result<std::string> fresh(base::json::Object spec) {
  const base::json::Value* found = spec.find("metadata");
  if (found == nullptr || found->as_object() == nullptr) {
    return Error(Errc::kInvalidArgument, "the jobspec has no metadata");
  }
  base::json::Object metadata = *found->as_object();
  const base::WallTime now = base::WallTime::now();
  metadata.set("uid", CR_TRY(crypto::uuid_v7(now)));
  metadata.set("issuedAt", base::format_rfc3339(now));
  metadata.set("expiresAt", base::format_rfc3339({now.seconds + kValiditySeconds, 0}));
  spec.set("metadata", std::move(metadata));
  return base::json::write(spec);
}

template <typename T>
base::Result<T> reply(base::Result<api::Response> response) {
  if (!response.ok()) {
    return std::move(response).error();
  }
  if (auto* wanted = std::get_if<T>(&*response)) {
    return std::move(*wanted);
  }
  const auto* failure = std::get_if<api::Failure>(&*response);
  return Error(Errc::kUnknown, failure == nullptr ? "an answer of another kind"
                                                  : std::string(to_string(failure->reason)) + ": " + failure->message);
}

// State by state, in nanoseconds since the first: where the node spent its time.
base::json::Array timeline_of(const api::Job& job) {
  base::json::Array out;
  for (const model::TimelineEntry& entry : job.timeline) {
    out.emplace_back(base::json::Array{to_string(entry.state), entry.boot.ns - job.timeline.front().boot.ns});
  }
  return out;
}

std::string judge(const api::Job& job, const std::string& out, const std::string& expected) {
  if (job.outcome.reason != model::Reason::kCompleted) {
    return std::string(to_string(job.outcome.reason)) + ": " + job.outcome.message;
  }
  if (job.verdict != model::Verdict::kClean) {
    return "teardown is " + std::string(job.verdict.has_value() ? to_string(*job.verdict) : "not on record");
  }
  return out == expected ? "" : "the output is not what was expected";
}

}  // namespace

base::Result<JobSampler> JobSampler::create(std::string socket, const std::string& key, const std::string& node_pub) {
  const std::string pem = CR_TRY(base::read_file(node_pub, kMaxKey));
  return JobSampler(std::move(socket), CR_TRY(crypto::PrivateKey::load(key)), CR_TRY(crypto::PublicKey::from_pem(pem)));
}

Sample JobSampler::run(const JobOrder& order) const {
  Sample sample;
  const auto spec = fresh(order.spec);
  const base::Status done = spec.ok() ? follow(*spec, order, sample) : base::Status(spec.error().clone());
  if (!done.ok()) {
    sample.details.set("gaveUpNs", now_ns());
    sample.failure = done.error().message();
  }
  return sample;
}

base::Status JobSampler::follow(const std::string& spec, const JobOrder& order, Sample& sample) const {
  const Deadline deadline = Deadline::after(order.limit);
  sample.start_ns = now_ns();
  const std::string envelope = CR_TRY(job::sign_spec(spec, key_));
  api::Client client = CR_TRY(api::Client::connect(socket_, deadline));
  const auto submitted = CR_TRY(reply<api::Submitted>(client.call(api::Submit{envelope}, deadline)));
  sample.details.set("acceptedNs", now_ns());
  sample.details.set("uid", submitted.uid);

  std::string out;
  const auto on_item = [&](api::Response response) {
    const auto* chunk = std::get_if<api::LogChunk>(&response);
    if (chunk != nullptr && chunk->stream == api::Stream::kStdout) {
      if (out.empty()) {
        sample.first_byte_ns = now_ns();
      }
      out.append(chunk->data, 0, kMaxOutput - std::min(out.size(), kMaxOutput));
    }
    return true;
  };
  const std::optional<api::Failure> refused =
      CR_TRY(client.stream(api::Logs{submitted.uid, 0, 0, true}, deadline.remaining(), on_item));
  if (refused.has_value()) {
    return Error(Errc::kUnknown, refused->message);
  }
  const auto record = CR_TRY(reply<api::EvidenceEnvelope>(client.call(api::GetEvidence{submitted.uid}, deadline)));
  sample.end_ns = now_ns();

  const auto parsed =
      CR_TRY(crypto::dsse::parse(base::as_bytes(record.envelope), {.max_payload_bytes = api::kMaxResponseBytes}));
  const auto job = CR_TRY(reply<api::Job>(client.call(api::Get{submitted.uid}, deadline)));
  sample.details.set("reason", to_string(job.outcome.reason));
  sample.details.set("timeline", timeline_of(job));
  sample.failure =
      crypto::dsse::verifies(parsed, node_) ? judge(job, out, order.expected) : "the record does not verify";
  return base::ok();
}

}  // namespace cellrund::bench
