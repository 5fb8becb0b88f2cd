#include "job/parse.hpp"

#include <doctest/doctest.h>

#include "example.hpp"

using namespace cellrund;
using job::test::edited;

namespace {

model::JobSpec parsed(const std::string& text) {
  auto spec = job::parse_spec(text);
  REQUIRE_MESSAGE(spec.ok(), (spec.ok() ? std::string() : spec.error().message));
  return std::move(*spec);
}

}  // namespace

TEST_CASE("every supported field arrives in the typed spec") {
  const model::JobSpec spec = parsed(job::test::example());
  CHECK(spec.metadata.name == "fix-tests");
  CHECK(spec.metadata.uid == "0199c1f2-7b1e-7c3a-9d2e-2f4b6a8c0e11");
  CHECK(spec.metadata.tenant == "research");
  CHECK(base::format_rfc3339(spec.metadata.issued_at) == "2026-11-21T10:00:00Z");
  CHECK(base::format_rfc3339(spec.metadata.not_before) == "2026-11-21T10:00:30Z");
  CHECK(base::format_rfc3339(spec.metadata.expires_at) == "2026-11-21T11:00:00Z");
  CHECK(spec.metadata.labels == model::StringMap{{"team", "sre"}});
  CHECK(spec.metadata.annotations == model::StringMap{{"example.com/ticket", "T-1"}});
  CHECK(spec.audience == "pool-a");
  CHECK(spec.min_tier == 2);
  CHECK(spec.lane == model::Lane::kMicrovm);
  REQUIRE(spec.principal.has_value());
  CHECK(spec.principal->type == "agent");
  CHECK(spec.principal->id == "fixer-7");
  CHECK(spec.principal->on_behalf_of == std::vector<std::string>{"alice"});
  CHECK(spec.container.image.repository == "registry.example:5000/agents/python");
  CHECK(spec.container.image.digest == "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef");
  CHECK(spec.container.command == std::vector<std::string>{"/usr/bin/python3"});
  CHECK(spec.container.args == std::vector<std::string>{"/task/run.py", ""});
  CHECK(spec.container.env == model::StringMap{{"LANG", "C.UTF-8"}});
  CHECK(spec.container.working_dir == "/workspace");
  CHECK(spec.container.security.run_as_user == 1000);
  CHECK(spec.container.security.run_as_group == 1001);
  CHECK(spec.container.security.capabilities == std::vector<std::string>{"CAP_NET_BIND_SERVICE"});
  CHECK(spec.container.security.no_new_privileges);
  CHECK_FALSE(spec.container.security.read_only_root_filesystem);
  CHECK(spec.limits.cpu_millis == 1500);
  CHECK(spec.limits.memory_bytes == 256ULL << 20U);
  CHECK(spec.limits.pids == 128);
  CHECK(spec.active_deadline.count() == 300);
  CHECK(spec.start_deadline.count() == 60);
  CHECK(spec.termination_grace.count() == 7);
  CHECK(spec.stop_signal == 2);
  CHECK(spec.volumes.scratch_bytes == 128ULL << 20U);
  REQUIRE(spec.expect_blocked.size() == 1);
  CHECK(spec.expect_blocked[0].address == "198.51.100.7");
  CHECK(spec.expect_blocked[0].port == 80);
  CHECK(spec.expect_blocked[0].protocol == "udp");
  CHECK(spec.logs.max_bytes == 1048576);
}

TEST_CASE("absent fields take their defaults") {
  const model::JobSpec spec = parsed(job::test::minimal());
  CHECK(spec.metadata.not_before == spec.metadata.issued_at);
  CHECK(spec.audience.empty());
  CHECK(spec.min_tier == 2);
  CHECK_FALSE(spec.lane.has_value());
  CHECK_FALSE(spec.principal.has_value());
  CHECK_FALSE(spec.container.command.has_value());
  CHECK_FALSE(spec.container.args.has_value());
  CHECK(spec.container.working_dir.empty());
  CHECK(spec.container.security.run_as_user == 65534);
  CHECK(spec.container.security.run_as_group == 65534);
  CHECK(spec.container.security.capabilities.empty());
  CHECK(spec.container.security.no_new_privileges);
  CHECK(spec.container.security.read_only_root_filesystem);
  CHECK(spec.start_deadline.count() == 120);
  CHECK(spec.termination_grace.count() == 5);
  CHECK(spec.stop_signal == 15);
  CHECK(spec.volumes.scratch_bytes == 64ULL << 20U);
  CHECK_FALSE(spec.volumes.task.has_value());
  CHECK_FALSE(spec.volumes.workspace_seed.has_value());
  CHECK(spec.logs.max_bytes == 16ULL << 20U);
}

TEST_CASE("no rules, null and an empty list all mean that nothing is allowed") {
  for (const char* egress : {"-", "{}", R"({"rules":null})", R"({"rules":[]})"}) {
    CAPTURE(egress);
    const auto spec = job::parse_spec(edited(job::test::minimal(), "spec.network.egress", egress));
    REQUIRE(spec.ok());
    CHECK(spec->egress.rules.empty());
  }
}

TEST_CASE("rules and quota are read as they are written") {
  const auto spec = job::parse_spec(edited(job::test::minimal(), "spec.network.egress",
                                           R"({"rules":[{"to":{"cidr":"203.0.113.0/24"},"ports":[443,5432],"protocol":"udp","expiresAt":"2099-01-01T00:00:00Z"},
                                               {"to":{"cidr":"0.0.0.0/0"},"ports":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,65535]}],
                                               "quota":{"bytes":10485760,"packets":0,"connections":50,"dnsQueries":20,"bytesPerSecond":1}})"));
  REQUIRE(spec.ok());
  REQUIRE(spec->egress.rules.size() == 2);
  const model::EgressRule& first = spec->egress.rules[0];
  CHECK(first.prefix()->text() == "203.0.113.0/24");
  CHECK(first.ports == std::vector<std::uint16_t>{443, 5432});
  CHECK(first.protocol == model::Transport::kUdp);
  CHECK(first.expires_at.has_value());
  CHECK(spec->egress.rules[1].protocol == model::Transport::kTcp);
  CHECK_FALSE(spec->egress.rules[1].expires_at.has_value());
  CHECK(spec->egress.quota.bytes == 10485760);
  CHECK(spec->egress.quota.packets == 0);
  CHECK(spec->egress.quota.connections == 50);
  CHECK(spec->egress.quota.dns_queries == 20);
  CHECK(spec->egress.quota.bytes_per_second == 1);
}

TEST_CASE("a target may be named, exactly or with everything below it") {
  const auto spec = job::parse_spec(edited(job::test::minimal(), "spec.network.egress",
                                           R"({"rules":[{"to":{"fqdn":"api.example.com"},"ports":[443]},{"to":{"fqdn":"*.example.com"},"ports":[80]}]})"));
  REQUIRE(spec.ok());
  CHECK(*spec->egress.rules[0].name() == model::HostName{"api.example.com", false});
  CHECK(*spec->egress.rules[1].name() == model::HostName{"example.com", true});
  CHECK(spec->egress.rules[1].name()->text() == "*.example.com");
  CHECK(spec->egress.names_hosts());
}

TEST_CASE("values at their bounds are accepted") {
  struct Row {
    const char *path, *json;
  };
  for (const auto& [path, json] : {
           Row{"spec.activeDeadlineSeconds", "604800"}, Row{"spec.startDeadlineSeconds", "1"},
           Row{"spec.terminationGracePeriodSeconds", "0"}, Row{"spec.resources.limits.ephemeral-storage", "\"0\""},
           Row{"spec.resources.limits.cpu", "\"1m\""}, Row{"spec.resources.limits.cpu", "\"1024\""},
           Row{"spec.resources.limits.memory", "\"1Mi\""}, Row{"spec.resources.limits.pids", "4194304"},
           Row{"spec.container.securityContext.runAsUser", "0"}, Row{"spec.container.securityContext.runAsUser", "4294967294"},
           Row{"spec.container.workingDir", "\"/\""}, Row{"spec.minTier", "0"}, Row{"spec.logs.maxBytes", "1024"},
           Row{"spec.container.args", "[\"\\n\\u00e9\"]"}, Row{"metadata.labels", "{}"}}) {
    CAPTURE(path);
    CAPTURE(json);
    CHECK(job::parse_spec(edited(job::test::minimal(), path, json)).ok());
  }
}

TEST_CASE("lanes of other nodes are well-formed") {
  for (const auto& [lane, tier] : {std::pair{"kata", 2}, {"microvm", 2}, {"gvisor", 1}, {"runc", 1}, {"process", 0}}) {
    CAPTURE(lane);
    const std::string text = edited(job::test::minimal(), "spec.lane", "\"" + std::string(lane) + "\"");
    CHECK(job::parse_spec(edited(text, "spec.minTier", std::to_string(tier))).ok());
    if (tier < 2) {
      CHECK_FALSE(job::parse_spec(edited(text, "spec.minTier", std::to_string(tier + 1))).ok());
    }
  }
}

TEST_CASE("a near miss gets the right name as a hint") {
  const auto spec = job::parse_spec(edited(job::test::minimal(), "spec.activedeadlineSeconds", "1"));
  REQUIRE_FALSE(spec.ok());
  CHECK(spec.error().hint == "did you mean \"activeDeadlineSeconds\"?");
  CHECK(spec.error().message == "spec has the unknown field \"activedeadlineSeconds\"");
  const auto far = job::parse_spec(edited(job::test::minimal(), "spec.hostNetwork", "true"));
  REQUIRE_FALSE(far.ok());
  CHECK(far.error().hint.find("did you mean") == std::string::npos);
}

TEST_CASE("an unknown key cannot smuggle control characters into the reply") {
  const auto spec = job::parse_spec(edited(job::test::minimal(), "spec.\x1b[31mred\n", "1"));
  REQUIRE_FALSE(spec.ok());
  CHECK(spec.error().field == "spec");
  CHECK(spec.error().message == R"(spec has the unknown field "\x1b[31mred\x0a")");
}

TEST_CASE("what was valid before the first fault is reported, and nothing else") {
  job::Identity identity;
  CHECK_FALSE(job::parse_spec(edited(job::test::minimal(), "spec.minTier", "7"), &identity).ok());
  CHECK(identity.uid == "0199c1f2-7b1e-7c3a-9d2e-2f4b6a8c0e11");
  CHECK(identity.tenant == "n");
  CHECK(identity.name == "m");
  job::Identity none;
  CHECK_FALSE(job::parse_spec(edited(job::test::minimal(), "metadata.uid", "\"../../etc\""), &none).ok());
  CHECK(none.uid.empty());
  CHECK(none.tenant.empty());
}
