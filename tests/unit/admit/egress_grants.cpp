#include "admit/egress_grants.hpp"

#include <doctest/doctest.h>

#include "model/address_ranges.hpp"

using namespace cellrund;
using admit::EgressGrants;

namespace {

model::EgressPolicy policy_of(std::initializer_list<const char*> targets) {
  model::EgressPolicy policy;
  for (const char* target : targets) {
    policy.rules.push_back({*model::parse_ipv4_prefix(target), {443}, model::Transport::kTcp, {}});
  }
  return policy;
}

EgressGrants grants_of(std::vector<std::string> entries) { return EgressGrants::from(entries); }

std::vector<std::string> texts(const std::vector<model::Relaxation>& relaxations) {
  std::vector<std::string> out;
  for (const auto& relaxation : relaxations) {
    out.push_back(model::text_of(relaxation));
  }
  return out;
}

}  // namespace

TEST_CASE("a key without grants reaches nothing, and a policy without rules needs none") {
  const EgressGrants none = grants_of({});
  CHECK_FALSE(none.check(policy_of({})).has_value());
  const auto refusal = none.check(policy_of({"203.0.113.0/24"}));
  REQUIRE(refusal.has_value());
  CHECK(refusal->reason == model::Reason::kPolicyDenied);
  CHECK(refusal->field == "spec.network.egress.rules[0].to.cidr");
  CHECK(refusal->message.find("203.0.113.0/24") != std::string::npos);
  CHECK_FALSE(refusal->hint.empty());
}

TEST_CASE("the refusal names the first rule that asks for more") {
  const auto refusal = grants_of({"public"}).check(policy_of({"203.0.113.0/24", "0.0.0.0/0", "10.1.0.0/16", "192.168.0.0/16"}));
  REQUIRE(refusal.has_value());
  CHECK(refusal->field == "spec.network.egress.rules[2].to.cidr");
}

TEST_CASE("private ranges open where they are granted, and public addresses do not follow") {
  const EgressGrants grants = grants_of({"private:10.2.0.0/16", "wildcard:*.example.com"});
  CHECK_FALSE(grants.check(policy_of({"10.2.0.0/16"})).has_value());
  CHECK_FALSE(grants.check(policy_of({"10.2.3.4/32"})).has_value());
  for (const char* beyond : {"10.0.0.0/8", "10.3.0.0/16", "192.168.0.0/24", "172.16.0.0/12", "192.0.0.0/24", "198.18.0.0/15", "203.0.113.9/32", "0.0.0.0/0", "8.0.0.0/5"}) {
    CAPTURE(beyond);
    CHECK(grants.check(policy_of({beyond})).has_value());
  }
}

TEST_CASE("no grant opens what no cell may reach") {
  const EgressGrants all = grants_of({"public", "private:0.0.0.0/0", "private:127.0.0.0/8", "private:169.254.0.0/16"});
  for (const char* never : {"169.254.169.254/32", "169.254.0.0/16", "169.254.170.2/32", "100.100.100.200/32", "100.64.0.0/10", "127.0.0.1/32", "224.0.0.0/4",
                            "239.1.2.3/32", "240.0.0.0/4", "255.255.255.255/32", "0.0.0.0/8", "0.0.0.0/32"}) {
    CAPTURE(never);
    const auto refusal = all.check(policy_of({never}));
    REQUIRE(refusal.has_value());
    CHECK(refusal->message.find("never") != std::string::npos);
  }
  CHECK_FALSE(all.check(policy_of({"0.0.0.0/0"})).has_value());  // what it holds of them stays closed in the filter
  for (const std::string& opened : texts(all.relaxations_for(policy_of({"0.0.0.0/0"})))) {
    CAPTURE(opened);
    for (const auto& range : model::kNeverReached) {
      CHECK((opened == "public" || !range.prefix.overlaps(*model::parse_ipv4_prefix(opened.substr(8)))));
    }
  }
}

TEST_CASE("a name needs something that its addresses may be in, and a wildcard a grant of its own") {
  const auto named = [](const char* name) {
    model::EgressPolicy policy;
    policy.rules.push_back({model::host_name_of(name), {443}, model::Transport::kTcp, {}});
    return policy;
  };
  CHECK(grants_of({}).check(named("api.example.com"))->field == "spec.network.egress.rules[0].to.fqdn");
  CHECK(grants_of({"wildcard:*.example.com"}).check(named("*.example.com")).has_value());
  CHECK_FALSE(grants_of({"public"}).check(named("api.example.com")).has_value());
  CHECK_FALSE(grants_of({"private:10.2.0.0/16"}).check(named("api.example.com")).has_value());
  const EgressGrants wild = grants_of({"public", "private:10.2.0.0/16", "wildcard:*.example.com"});
  CHECK_FALSE(wild.check(named("*.example.com")).has_value());
  CHECK_FALSE(wild.check(named("*.a.example.com")).has_value());
  for (const char* beyond : {"*.com", "*.example.org", "*.notexample.com"}) {
    CAPTURE(beyond);
    CHECK(wild.check(named(beyond)).has_value());
  }
  using Texts = std::vector<std::string>;
  CHECK(texts(wild.relaxations_for(named("*.a.example.com"))) == Texts{"public", "wildcard:*.example.com"});
  // Next to public, a private range takes a rule of its own.
  model::EgressPolicy both = named("api.example.com");
  CHECK(texts(wild.relaxations_for(both)) == Texts{"public"});
  both.rules.push_back(policy_of({"10.2.3.0/24"}).rules.front());
  CHECK(texts(wild.relaxations_for(both)) == Texts{"public", "private:10.2.0.0/16"});
  CHECK(texts(grants_of({"private:10.2.0.0/16"}).relaxations_for(named("api.example.com"))) == Texts{"private:10.2.0.0/16"});
}

TEST_CASE("relaxations are those that a rule needs, each once") {
  const EgressGrants grants = grants_of({"public", "private:10.2.0.0/16", "private:10.2.0.0/16", "private:192.168.0.0/16"});
  using Texts = std::vector<std::string>;
  CHECK(texts(grants.relaxations_for(policy_of({}))).empty());
  CHECK(texts(grants.relaxations_for(policy_of({"203.0.113.0/24"}))) == Texts{"public"});
  CHECK(texts(grants.relaxations_for(policy_of({"10.2.3.0/24"}))) == Texts{"private:10.2.0.0/16"});
  CHECK(texts(grants.relaxations_for(policy_of({"0.0.0.0/0"}))) == Texts{"public", "private:10.2.0.0/16", "private:192.168.0.0/16"});
  CHECK(texts(grants_of({"private:0.0.0.0/0"}).relaxations_for(policy_of({"10.0.0.1/32"}))) == Texts{"private:10.0.0.0/8"});
}
