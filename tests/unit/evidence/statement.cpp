#include "evidence/statement.hpp"

#include <doctest/doctest.h>

#include <string>

#include "base/json.hpp"
#include "crypto/digest.hpp"
#include "evidence/verify.hpp"
#include "facts.hpp"
#include "golden.hpp"

using namespace cellrund;
namespace json = base::json;
namespace test = evidence::test;

namespace {

const json::Value& at(const json::Value& value, std::initializer_list<const char*> path) {
  const json::Value* found = &value;
  for (const char* key : path) {
    found = found->find(key);
    REQUIRE_MESSAGE(found != nullptr, key);
  }
  return *found;
}

}  // namespace

TEST_CASE("the record of a full run is the golden one") {
  test::check_golden("evidence.json", json::write_pretty(evidence::statement(test::full())));
}

TEST_CASE("the record of a refusal is the golden one: nothing that was not produced stands in it") {
  test::check_golden("evidence-refused.json", json::write_pretty(evidence::statement(test::refused())));
}

TEST_CASE("sealing is deterministic and names the envelope by its digest") {
  const auto a = evidence::seal(test::full(), test::node_key());
  const auto b = evidence::seal(test::full(), test::node_key());
  REQUIRE(a.ok());
  CHECK(a->envelope == b->envelope);
  CHECK(a->digest == crypto::digest_text(base::as_bytes(a->envelope)));
}

TEST_CASE("a record names the key that signs it, or is not sealed") {
  CHECK_FALSE(evidence::seal(test::full(), *crypto::PrivateKey::generate()).ok());
  auto facts = test::full();
  facts.request.spec_digest = "sha256:abc";
  CHECK_FALSE(evidence::seal(facts, test::node_key()).ok());
}

TEST_CASE("the process lane has no guest whose word it could be") {
  auto facts = test::full();
  facts.lane = model::LaneFacts{.name = "process", .tier = 0};
  const auto statement = evidence::statement(facts);
  CHECK(at(statement, {"predicate", "vantage", "guest"}).as_array()->empty());
  CHECK(at(evidence::statement(test::full()), {"predicate", "vantage", "guest"}).as_array()->size() == 3);
}

TEST_CASE("a reason that rests on the guest's word is listed as such") {
  auto facts = test::full();
  facts.outcome.reason = model::Reason::kOomKilledGuest;
  CHECK(at(evidence::statement(facts), {"predicate", "vantage", "guest"}).as_array()->size() == 4);
  facts.outcome.reason = model::Reason::kOomKilledHost;
  CHECK(at(evidence::statement(facts), {"predicate", "vantage", "guest"}).as_array()->size() == 3);
}

TEST_CASE("a count of refusals is a record with itself as subject") {
  model::Evidence facts;
  facts.node = test::full().node;
  facts.refusals_sealed = 1234;
  facts.outcome = {model::State::kRejected, model::Reason::kNone, {}, {}, ""};
  const auto sealed = evidence::seal(facts, test::node_key());
  REQUIRE(sealed.ok());
  const auto record = evidence::verify(base::as_bytes(sealed->envelope), test::node_key().public_key());
  REQUIRE(record.ok());
  CHECK(record->spec_digest.empty());
  CHECK(*at(record->predicate(), {"refusals", "count"}).as_int() == 1234);
}

TEST_CASE("hostile strings make no record that cannot be read back") {
  auto facts = test::full();
  facts.lane->guest_kernel_release = std::string("6.1\0evil\x1b[2J\xff\xfe \xed\xa0\x80", 17);
  facts.outcome.message = std::string(100000, 'm');
  const auto sealed = evidence::seal(facts, test::node_key());
  REQUIRE(sealed.ok());
  const auto record = evidence::verify(base::as_bytes(sealed->envelope), test::node_key().public_key());
  REQUIRE(record.ok());
  CHECK(*at(record->predicate(), {"completeness"}).as_string() == "partial");
  CHECK(at(record->predicate(), {"exit", "message"}).as_string()->size() < 1100);
}

TEST_CASE("a flood of facts is cut, and the record says so") {
  auto facts = test::full();
  for (int i = 0; i < 20000; ++i) {
    facts.egress->decisions.push_back({static_cast<std::uint64_t>(i), i, 17, "203.0.113.9", 53, "denied", "default-deny", 1});
  }
  auto sealed = evidence::seal(facts, test::node_key());
  REQUIRE(sealed.ok());
  auto record = evidence::verify(base::as_bytes(sealed->envelope), test::node_key().public_key());
  REQUIRE(record.ok());
  CHECK(at(record->predicate(), {"egress", "decisions"}).as_array()->size() == 4096);
  CHECK(*at(record->predicate(), {"completeness"}).as_string() == "partial");
  REQUIRE(at(record->predicate(), {"gaps"}).as_array()->size() == 1);

  const std::string huge(1024, 'x');
  for (int i = 0; i < 1000; ++i) {
    facts.teardown->created.push_back({model::ItemKind::kFile, huge, huge});
    facts.teardown->failures.push_back(huge);
    facts.teardown->residue.checks.push_back({huge, huge, huge, huge, false});
    facts.teardown->residue.residue.push_back({model::ItemKind::kFile, huge, huge, huge});
    facts.teardown->residue.unknown.push_back({huge, huge});
    facts.egress->counters.emplace_back(huge, UINT64_MAX);
    facts.timeline.push_back({model::State::kRunning, {}, {}, huge});
    facts.gaps.push_back(huge);
    facts.deadline.ladder.push_back(huge);
  }
  sealed = evidence::seal(facts, test::node_key());
  REQUIRE(sealed.ok());
  CHECK(evidence::verify(base::as_bytes(sealed->envelope), test::node_key().public_key()).ok());
}
