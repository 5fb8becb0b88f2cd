#include "api/messages.hpp"

#include <doctest/doctest.h>

#include "base/file.hpp"

using namespace cellrund;

namespace {

template <typename T>
T through(const T& message) {
  if constexpr (std::is_constructible_v<api::Request, T>) {
    return std::get<T>(api::decode_request(base::as_bytes(api::encode(api::Request(message)))).value());
  } else {
    return std::get<T>(api::decode_response(base::as_bytes(api::encode(api::Response(message)))).value());
  }
}

api::Job job() {
  api::Job job;
  job.uid = "u";
  job.name = "n";
  job.owner_uid = 1000;
  job.state = model::State::kTimedOut;
  job.outcome = {model::State::kTimedOut, model::Reason::kDeadlineExceeded, std::nullopt, 9, "m"};
  job.verdict = model::Verdict::kResidue;
  job.timeline = {{model::State::kRunning, {1700000000, 123000000}, {77}, "started"}};
  job.version = 5;
  job.closed = true;
  return job;
}

}  // namespace

TEST_CASE("requests survive the wire") {
  CHECK(through(api::Submit{std::string("\0\xff", 2)}).envelope == std::string("\0\xff", 2));
  CHECK(through(api::List{7}).limit == 7);
  CHECK(through(api::Watch{"u", 3}).after_version == 3);
  const api::Logs logs = through(api::Logs{"u", 1, 2, true, true});
  CHECK(logs.timestamps);
  CHECK(logs.uid == "u");
  CHECK(logs.stdout_offset == 1);
  CHECK(logs.stderr_offset == 2);
  CHECK(logs.follow);
  CHECK(through(api::SetDraining{true}).draining);
  for (const auto action : {api::KillSwitchAction::kStatus, api::KillSwitchAction::kEngage, api::KillSwitchAction::kRelease}) {
    CHECK(through(api::UseKillSwitch{action}).action == action);
  }
  (void)through(api::GetCapacity{});
  const auto upload = through(api::Upload{"sha256:1", 10, 3, std::string("\0bytes", 6)});
  CHECK(upload.digest == "sha256:1");
  CHECK(upload.size == 10);
  CHECK(upload.offset == 3);
  CHECK(upload.data == std::string("\0bytes", 6));
  CHECK(through(api::Uploaded{7, true}).received == 7);
  CHECK(through(api::Uploaded{7, true}).whole);
  (void)through(api::Ping{});
}

TEST_CASE("a job survives the wire") {
  const api::Job back = through(job());
  CHECK(back.state == model::State::kTimedOut);
  CHECK(back.outcome.reason == model::Reason::kDeadlineExceeded);
  CHECK_FALSE(back.outcome.exit_code.has_value());
  CHECK(back.outcome.signal == 9);
  CHECK(back.verdict == model::Verdict::kResidue);
  REQUIRE(back.timeline.size() == 1);
  CHECK(back.timeline[0].wall == base::WallTime{1700000000, 123000000});
  CHECK(back.timeline[0].boot.ns == 77);
  CHECK(back.version == 5);
  CHECK(back.closed);
  CHECK_FALSE(back.foreign);
}

TEST_CASE("failures, logs, flows and capacity survive the wire") {
  const api::Failure failure =
      through(api::Failure{base::Errc::kUnavailable, model::Reason::kNoCapacity, "m", "h", true, "f", "u"});
  CHECK(failure.code == base::Errc::kUnavailable);
  CHECK(failure.reason == model::Reason::kNoCapacity);
  CHECK(failure.retryable);
  CHECK(failure.field == "f");
  CHECK(through(api::LogChunk{api::Stream::kStderr, 9, "x"}).stream == api::Stream::kStderr);
  CHECK(through(api::LogChunk{api::Stream::kStdout, 9, "x", 7}).wall_ns == 7);
  CHECK(through(api::LogChunk{.cut = true}).cut);
  api::Flows flows;
  flows.egress.counters = {{"default-deny", 4}};
  flows.egress.decisions = {{1, 2, 17, "198.51.100.7", 53, "denied", "default-deny", 4}};
  const api::Flows back = through(flows);
  CHECK(back.egress.decisions.at(0).destination == "198.51.100.7");
  CHECK(back.egress.decisions.at(0).protocol == 17);
  CHECK(back.egress.counters.at(0).second == 4);
  CHECK_FALSE(back.egress.dns.has_value());
  flows.egress.dns = model::DnsFacts{{"198.51.100.53"}, true, {{1, 2, "api.example.com", "A", "answered", {"198.51.100.7"}, 3}}, 3, 1, 4, "died", {{"answered", 3}, {"not-listed", 1}}};
  const auto dns = through(flows).egress.dns;
  REQUIRE(dns.has_value());
  CHECK(dns->tunnel_capable);
  CHECK(dns->queries.at(0).name == "api.example.com");
  CHECK(dns->queries.at(0).addresses == std::vector<std::string>{"198.51.100.7"});
  CHECK(dns->queries.at(0).count == 3);
  CHECK(dns->counted == 4);
  CHECK(dns->failure == "died");
  CHECK(dns->counters == flows.egress.dns->counters);
  api::Outputs outputs;
  outputs.facts = {{{"a", 1, "sha256:00"}}, {{"b", "FIFO"}}, 7, "sha256:11", "cut"};
  const model::OutputFacts facts = through(outputs).facts;
  CHECK(facts.files.at(0).path == "a");
  CHECK(facts.files.at(0).size == 1);
  CHECK(facts.files.at(0).sha256 == "sha256:00");
  CHECK(facts.refused.at(0).why == "FIFO");
  CHECK(facts.refused_count == 7);
  CHECK(facts.manifest_digest == "sha256:11");
  CHECK(facts.incomplete_because == "cut");
  CHECK(through(api::OutputChunk{5, "x"}).offset == 5);
  api::Capacity capacity;
  capacity.lanes = {"microvm", "process"};
  capacity.accel = "tcg";
  capacity.cells_total = 3;
  CHECK(through(capacity).lanes.size() == 2);
  CHECK(through(capacity).accel == "tcg");
}

TEST_CASE("what is no message is an error") {
  CHECK_FALSE(api::decode_request(base::as_bytes("")).ok());
  CHECK_FALSE(api::decode_request(base::as_bytes("garbage")).ok());
  CHECK_FALSE(api::decode_response(base::as_bytes("\xff\xff\xff")).ok());
  const std::string whole = api::encode(api::Response(job()));
  for (std::size_t cut = 0; cut < whole.size(); ++cut) {
    CHECK_FALSE(api::decode_response(base::as_bytes(std::string_view(whole).substr(0, cut))).ok());
  }
}

TEST_CASE("a state that this version does not know is an error") {
  std::string wire = api::encode(api::Response(job()));
  const std::size_t at = wire.find("TIMED_OUT");
  REQUIRE(at != std::string::npos);
  wire[at] = 'X';
  CHECK_FALSE(api::decode_response(base::as_bytes(wire)).ok());
}

TEST_CASE("a refusal keeps its reason and says whether to try again") {
  const api::Failure full = api::failure_from(model::Refusal{model::Reason::kNoCapacity, "m", "h", ""}, "u");
  CHECK(full.retryable);
  CHECK(full.code == base::Errc::kUnavailable);
  const api::Failure bad = api::failure_from(model::Refusal{model::Reason::kSchemaInvalid, "m", "h", "spec.x"}, "");
  CHECK_FALSE(bad.retryable);
  CHECK(bad.code == base::Errc::kInvalidArgument);
  CHECK(bad.field == "spec.x");
}
