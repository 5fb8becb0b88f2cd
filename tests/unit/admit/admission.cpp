#include "admit/admission.hpp"

#include <doctest/doctest.h>
#include <unistd.h>

#include <functional>
#include <string>
#include <vector>

#include "base/file.hpp"
#include "job/parse.hpp"
#include "job/verifier.hpp"

using namespace cellrund;
using admit::Accel;
using model::Lane;
using model::Reason;

namespace {

const base::WallTime kNow = *base::parse_rfc3339("2026-11-21T10:30:00Z");

struct Ask {
  std::string tenant = "research";
  std::string repository = "registry.example/agents/python";
  std::string spec = {};  // further members of "spec"
  std::string cpu = "1", memory = "256Mi";
  int pids = 10;
  int deadline = 100;
};

std::string text_of(const Ask& ask) {
  return R"({"apiVersion":"cellrun.dev/v1","kind":"Job","metadata":{"name":"m","uid":"0199c1f2-7b1e-7c3a-9d2e-2f4b6a8c0e11","namespace":")" + ask.tenant +
         R"(","issuedAt":"2026-11-21T10:00:00Z","expiresAt":"2026-11-21T11:00:00Z"},"spec":{"container":{"image":")" + ask.repository + "@sha256:" +
         std::string(64, 'a') + R"("},"resources":{"limits":{"cpu":")" + ask.cpu + R"(","memory":")" + ask.memory + R"(","pids":)" +
         std::to_string(ask.pids) + R"(}},"activeDeadlineSeconds":)" + std::to_string(ask.deadline) + ask.spec + "}}";
}

struct Fixture {
  crypto::PrivateKey key = std::move(*crypto::PrivateKey::generate());
  std::string dir;
  admit::Grant grant;
  admit::NodePolicy policy{{{Lane::kProcess, Accel::kNone}, {Lane::kMicrovm, Accel::kKvm}}, false};

  Fixture() {
    std::string pattern = "/tmp/cellrun-unit-admission-XXXXXX";
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    dir = pattern;
    grant.namespaces = {"research", "ops"};
    grant.principals = {"agent:fixer-*"};
    grant.images = {"registry.example/agents/*"};
    grant.max_deadline = std::chrono::seconds(100);
    grant.max_concurrent = 3;
    grant.resources = {1000, 256ULL << 20U, 10, 1ULL << 30U};
  }
  Fixture(const Fixture&) = delete;
  Fixture& operator=(const Fixture&) = delete;
  Fixture(Fixture&&) = delete;
  Fixture& operator=(Fixture&&) = delete;
  ~Fixture() {
    (void)base::remove_file(dir + "/k.toml");  // best effort: a leftover of a failed test in /tmp
    (void)base::remove_file(dir + "/k.pub");
    (void)base::remove_dir(dir);
  }

  [[nodiscard]] admit::TrustStore store() const {
    REQUIRE(base::remove_file(dir + "/k.toml").ok());
    REQUIRE(base::remove_file(dir + "/k.pub").ok());
    REQUIRE(admit::add_trust(dir, "k", key.public_key(), grant).ok());
    auto out = admit::TrustStore::load(dir);
    REQUIRE(out.ok());
    return std::move(*out);
  }
  [[nodiscard]] model::VerifiedJob verified(const Ask& ask) const {
    crypto::Keyring ring;
    REQUIRE(ring.add({key.public_key(), false, {}}).ok());
    auto job = job::Verifier::verify(base::as_bytes(*job::sign_spec(text_of(ask), key)), ring, {}, kNow);
    REQUIRE_MESSAGE(job.ok(), (job.ok() ? std::string() : job.error().refusal.message));
    return std::move(*job);
  }
  [[nodiscard]] base::Result<model::AdmittedJob, model::Refusal> admit(const Ask& ask, std::uint64_t open_jobs = 0) const {
    return admit::Admission(policy).admit(verified(ask), store(), open_jobs);
  }
  [[nodiscard]] model::Refusal refused(const Ask& ask, std::uint64_t open_jobs = 0) const {
    auto job = admit(ask, open_jobs);
    REQUIRE_FALSE(job.ok());
    return std::move(job).error();
  }
};

}  // namespace

TEST_CASE_FIXTURE(Fixture, "a job at every bound of its grant is admitted as the key's own service") {
  const auto job = admit({}, 2);
  REQUIRE(job.ok());
  CHECK(job->lane() == Lane::kMicrovm);
  CHECK(job->principal().type == "service");
  CHECK(job->principal().id == key.public_key().key_id());
  CHECK(job->verified().signer_key_id() == key.public_key().key_id());
}

TEST_CASE_FIXTURE(Fixture, "each bound of a grant refuses with its own field") {
  struct Row {
    Ask ask;
    const char* field;
  };
  for (const Row& row : std::vector<Row>{
           {{.tenant = "finance"}, "metadata.namespace"},
           {{.repository = "registry.example/other/python"}, "spec.container.image"},
           {{.repository = "registry.example/agents/deep/python"}, "spec.container.image"},
           {{.spec = R"(,"principal":{"type":"human","id":"alice"})"}, "spec.principal"},
           {{.spec = R"(,"principal":{"type":"agent","id":"other"})"}, "spec.principal"},
           {{.spec = R"(,"principal":{"type":"service","id":"other"})"}, "spec.principal"},
           {{.spec = R"(,"minTier":1)"}, "spec.minTier"},
           {{.spec = R"(,"minTier":0,"lane":"microvm")"}, "spec.minTier"},
           {{.deadline = 101}, "spec.activeDeadlineSeconds"},
           {{.cpu = "1001m"}, "spec.resources.limits.cpu"},
           {{.memory = "257Mi"}, "spec.resources.limits.memory"},
           {{.pids = 11}, "spec.resources.limits.pids"}}) {
    CAPTURE(row.field);
    const model::Refusal refusal = refused(row.ask);
    CHECK(refusal.reason == Reason::kPolicyDenied);
    CHECK(refusal.field == row.field);
    CHECK_FALSE(refusal.hint.empty());
  }
  CHECK(refused({}, 3).reason == Reason::kPolicyDenied);
}

TEST_CASE_FIXTURE(Fixture, "a secret takes the job's own namespace and the key's grant") {
  const auto asks = [](const char* ref) { return Ask{.spec = std::string(R"(,"secrets":[{"name":"t","ref":")") + ref + R"("}])"}; };
  CHECK(refused(asks("research/token")).field == "spec.secrets[0].ref");  // no grant at all
  grant.secrets = {"research/tok*", "ops/*"};
  const auto job = admit(asks("research/token"));
  REQUIRE(job.ok());
  REQUIRE(job->spec().secrets.size() == 1);
  CHECK(job->spec().secrets[0].name == "t");
  CHECK(refused(asks("research/key")).field == "spec.secrets[0].ref");
  CHECK(refused(asks("ops/token")).message.find("namespace") != std::string::npos);  // granted, and another namespace's
}

TEST_CASE_FIXTURE(Fixture, "named principals and the key's own service are allowed") {
  const auto agent = admit({.spec = R"(,"principal":{"type":"agent","id":"fixer-7","onBehalfOf":["alice"]})"});
  REQUIRE(agent.ok());
  CHECK(agent->principal().id == "fixer-7");
  CHECK(agent->principal().on_behalf_of == std::vector<std::string>{"alice"});
  CHECK(admit({.spec = R"(,"principal":{"type":"service","id":")" + key.public_key().key_id() + "\"}"}).ok());
}

TEST_CASE_FIXTURE(Fixture, "egress rules need the key's grant, and the job carries what of it they use") {
  const std::string rules = R"(,"network":{"egress":{"rules":[{"to":{"cidr":"203.0.113.0/24"},"ports":[443]},{"to":{"cidr":"10.2.3.0/24"},"ports":[22]}]}})";
  const model::Refusal denied = refused({.spec = rules});
  CHECK(denied.reason == Reason::kPolicyDenied);
  CHECK(denied.field == "spec.network.egress.rules[0].to.cidr");
  grant.egress = {"public", "private:10.2.0.0/16"};
  const auto admitted = admit({.spec = rules});
  REQUIRE(admitted.ok());
  REQUIRE(admitted->relaxations().size() == 2);
  CHECK(model::text_of(admitted->relaxations()[1]) == "private:10.2.0.0/16");
  CHECK(admit({})->relaxations().empty());
}

TEST_CASE_FIXTURE(Fixture, "a rule with a name needs a node that can resolve it") {
  const std::string rules = R"(,"network":{"egress":{"rules":[{"to":{"cidr":"203.0.113.0/24"},"ports":[443]},{"to":{"fqdn":"api.example.com"},"ports":[443]}]}})";
  grant.egress = {"public"};
  const model::Refusal denied = refused({.spec = rules});
  CHECK(denied.reason == Reason::kPolicyDenied);
  CHECK(denied.field == "spec.network.egress.rules[1].to.fqdn");
  CHECK(denied.hint.find("dns_upstream") != std::string::npos);
  policy.resolves_names = true;
  CHECK(admit({.spec = rules}).ok());
}

TEST_CASE_FIXTURE(Fixture, "a star allows any namespace") {
  grant.namespaces = {"*"};
  CHECK(admit({.tenant = "finance"}).ok());
}

TEST_CASE_FIXTURE(Fixture, "a key that is gone, revoked or over is refused although its signature was verified") {
  CHECK(admit::Admission(policy).admit(verified({}), admit::TrustStore(), 0).error().reason == Reason::kSignerNotTrusted);
  grant.revoked = true;
  CHECK(refused({}).reason == Reason::kSignerRevoked);
  grant.revoked = false;
  grant.not_after = kNow;
  CHECK(refused({}).reason == Reason::kSignerNotTrusted);
}

TEST_CASE_FIXTURE(Fixture, "a refused job is left intact") {
  auto job = verified({.tenant = "finance"});
  CHECK_FALSE(admit::Admission(policy).admit(std::move(job), store(), 0).ok());
  CHECK(job.spec().metadata.tenant == "finance");  // NOLINT(bugprone-use-after-move): that is the promise
}

TEST_CASE_FIXTURE(Fixture, "a lane is chosen at or above the floor and never below it") {
  grant.min_tier = 0;
  struct Row {
    std::vector<admit::LaneOffer> lanes;
    int min_tier;
    const char* lane;  // named by the spec; null: none
    std::optional<Lane> chosen;
  };
  const admit::LaneOffer microvm{Lane::kMicrovm, Accel::kKvm};
  const admit::LaneOffer emulated{Lane::kMicrovm, Accel::kTcg};
  const admit::LaneOffer kata{Lane::kKata, Accel::kKvm};
  const admit::LaneOffer runc{Lane::kRunc, Accel::kNone};
  const admit::LaneOffer process{Lane::kProcess, Accel::kNone};
  int index = 0;
  for (const Row& row : std::vector<Row>{
           {{process, runc, microvm}, 2, nullptr, Lane::kMicrovm},
           {{microvm, kata}, 2, nullptr, Lane::kKata},
           {{process, runc, microvm}, 1, nullptr, Lane::kRunc},
           {{process, microvm}, 1, nullptr, Lane::kMicrovm},
           {{process, microvm}, 0, nullptr, Lane::kProcess},
           {{process, microvm}, 0, "microvm", Lane::kMicrovm},
           {{process, microvm}, 2, "microvm", Lane::kMicrovm},
           {{process, runc}, 2, nullptr, {}},
           {{process}, 1, nullptr, {}},
           {{}, 0, nullptr, {}},
           {{microvm}, 2, "kata", {}},
           {{microvm}, 0, "process", {}},
           {{process, emulated}, 2, nullptr, {}},
           {{process, emulated}, 2, "microvm", {}},
           {{process, emulated}, 0, "microvm", {}},
           {{process, emulated}, 0, nullptr, Lane::kProcess}}) {
    CAPTURE(index++);
    policy.lanes = row.lanes;
    const std::string named = row.lane == nullptr ? "" : R"(,"lane":")" + std::string(row.lane) + "\"";
    const auto job = admit({.spec = ",\"minTier\":" + std::to_string(row.min_tier) + named});
    CHECK(job.ok() == row.chosen.has_value());
    if (job.ok()) {
      CHECK(job->lane() == row.chosen);
    } else {
      CHECK(job.error().reason == Reason::kLaneUnavailable);
    }
  }
  policy = {{emulated}, true};
  CHECK(admit({})->lane() == Lane::kMicrovm);
}

TEST_CASE_FIXTURE(Fixture, "the process lane refuses what it cannot hold, the microVM takes it") {
  grant.min_tier = 0;
  for (const char* context : {R"({"runAsUser":0})", R"({"runAsGroup":0})", R"({"capabilities":["CAP_KILL"]})", R"({"noNewPrivileges":false})"}) {
    CAPTURE(context);
    // The container stands before the additions: a second "container" would be a duplicate, so edit the text.
    std::string text = text_of({.spec = ",\"minTier\":0"});
    text.insert(text.find("\"},\"resources\"") + 1, std::string(",\"securityContext\":") + context);
    for (const auto& [lane, accepted] : {std::pair{"process", false}, std::pair{"microvm", true}}) {
      std::string named = text;
      named.insert(named.size() - 2, std::string(",\"lane\":\"") + lane + "\"");
      crypto::Keyring ring;
      REQUIRE(ring.add({key.public_key(), false, {}}).ok());
      auto job = job::Verifier::verify(base::as_bytes(*job::sign_spec(named, key)), ring, {}, kNow);
      REQUIRE(job.ok());
      const auto admitted = admit::Admission(policy).admit(std::move(*job), store(), 0);
      CHECK(admitted.ok() == accepted);
      if (!accepted) {
        CHECK(admitted.error().reason == Reason::kUnsupportedField);
        CHECK(admitted.error().field.starts_with("spec.container.securityContext."));
      }
    }
  }
}
