#include "netpolicy/policy.hpp"

#include <doctest/doctest.h>

#include <random>

#include "tests/support/egress_packets.hpp"

using namespace cellrund;
using namespace cellrund::netpolicy;
using model::Transport;

namespace {

const base::WallTime kEarly = *base::parse_rfc3339("2026-11-21T10:30:00Z");
const base::WallTime kLate = *base::parse_rfc3339("2026-11-21T11:30:00Z");

std::uint64_t boot_ns(base::WallTime time) { return static_cast<std::uint64_t>(time.seconds) * 1'000'000'000U; }

std::uint32_t address(const char* text) { return *model::parse_ipv4(text); }

}  // namespace

TEST_CASE("no rules compile to the deny set alone, whose digest is that of the text") {
  const CompiledPolicy none = test::deny_all();
  CHECK(none.allow.empty());
  CHECK(none.relaxations.empty());
  CHECK(none.policy_digest == "sha256:e689f89309bcf2cb633bfb3104f5dcccf5f72e34a803312d5eece52c224232e6");
  REQUIRE(find_deny(none, address("192.0.2.1")) != nullptr);
  CHECK(find_deny(none, address("192.0.2.1"))->reason == CR_REASONS);
}

TEST_CASE("no rule and no grant opens the deny set") {
  const CompiledPolicy wide = test::compiled({{test::rule("0.0.0.0/0", {80})}, {}},
                                             {"public", "private:0.0.0.0/0", "private:169.254.0.0/16", "private:127.0.0.0/8"});
  const std::pair<const char*, unsigned> rows[] = {
      {"169.254.169.254", CR_METADATA}, {"169.254.170.2", CR_METADATA}, {"100.100.100.200", CR_METADATA}, {"169.254.1.1", CR_LINK_LOCAL},
      {"127.0.0.1", CR_LOOPBACK}, {"0.1.2.3", CR_THIS_NETWORK}, {"224.0.0.251", CR_MULTICAST}, {"255.255.255.255", CR_BROADCAST},
      {"250.0.0.1", CR_RESERVED}, {"100.64.0.0", CR_ROUTER}, {"100.64.0.3", CR_CELL_NETWORK}, {"203.0.113.250", CR_HOST}, {"10.2.0.1", CR_HOST}};
  for (const auto& [text, reason] : rows) {
    CAPTURE(text);
    CHECK(find_deny(wide, address(text))->reason == reason);
  }
  CHECK(find_deny(wide, address("10.9.9.9"))->reason == CR_REASONS);  // granted
  CHECK(wide.relaxations.front() == "public");
}

TEST_CASE("private ranges stay closed but where a grant opens them") {
  const CompiledPolicy policy = test::packet_policy();
  CHECK(policy.relaxations == std::vector<std::string>{"public", "private:10.2.0.0/16"});
  CHECK(find_deny(policy, address("10.2.3.4"))->reason == CR_REASONS);
  for (const char* text : {"10.1.255.255", "10.3.0.0", "172.16.0.1", "192.168.1.1", "198.18.0.1", "192.0.0.8"}) {
    CAPTURE(text);
    CHECK(find_deny(policy, address(text))->reason == CR_PRIVATE);
  }
}

TEST_CASE("where rules overlap, the last to expire holds, whichever is narrower") {
  const CompiledPolicy policy =
      test::compiled({{test::rule("198.51.0.0/16", {443}, Transport::kTcp, kLate), test::rule("198.51.100.0/24", {443}, Transport::kTcp, kEarly),
                       test::rule("198.51.100.7/32", {443}), test::rule("198.51.0.0/16", {443}, Transport::kTcp, kEarly),
                       test::rule("198.51.100.0/24", {80}, Transport::kTcp, kEarly)},
                      {}},
                     {"public"});
  CHECK(policy.allow.size() == 3);
  const AllowEntry* wide = find_allow(policy, Transport::kTcp, 443, address("198.51.100.8"));
  REQUIRE(wide != nullptr);
  CHECK(wide->expires_ns == boot_ns(kLate));
  CHECK(wide->rule == 0);
  const AllowEntry* narrow = find_allow(policy, Transport::kTcp, 443, address("198.51.100.7"));
  CHECK(narrow->expires_ns == CR_NEVER);
  CHECK(narrow->rule == 2);
  CHECK(find_allow(policy, Transport::kTcp, 80, address("198.51.100.7"))->expires_ns == boot_ns(kEarly));
  CHECK(find_allow(policy, Transport::kUdp, 443, address("198.51.100.7")) == nullptr);
}

TEST_CASE("the longest match of random rules holds as long as the last of all rules that match") {
  std::mt19937_64 random(7);
  for (int round = 0; round < 200; ++round) {
    model::EgressPolicy policy;
    for (int i = 0; i < 12; ++i) {
      model::Ipv4Prefix to{static_cast<std::uint32_t>(random()) & 0x0000ffffU, static_cast<std::uint8_t>(random() % 33)};
      to.address = (to.address | 0xc6330000U) & to.mask();
      const base::WallTime expires{static_cast<std::int64_t>(1000 + random() % 5), 0};
      policy.rules.push_back({to, {443}, Transport::kTcp, random() % 4 == 0 ? std::nullopt : std::optional(expires)});
    }
    const CompiledPolicy maps = test::compiled(policy, {"public"});
    for (int i = 0; i < 50; ++i) {
      const std::uint32_t target = 0xc6330000U | (static_cast<std::uint32_t>(random()) & 0xffffU);
      std::uint64_t last = 0;
      for (const auto& rule : policy.rules) {
        if (rule.prefix()->contains(target)) {
          last = std::max<std::uint64_t>(last, rule.expires_at.has_value() ? boot_ns(*rule.expires_at) : CR_NEVER);
        }
      }
      const AllowEntry* found = find_allow(maps, Transport::kTcp, 443, target);
      REQUIRE((found == nullptr ? 0 : found->expires_ns) == last);
    }
  }
}

TEST_CASE("rules expire by the boot clock, and one long past keeps its entry") {
  model::EgressPolicy policy{{test::rule("192.0.2.0/24", {443}, Transport::kTcp, kEarly)}, {}};
  const std::int64_t offset = -1'763'000'000LL * 1'000'000'000;
  CHECK(test::compiled(policy, {"public"}, offset).allow[0].expires_ns == boot_ns(kEarly) - 1'763'000'000ULL * 1'000'000'000);
  policy.rules[0].expires_at = base::WallTime{5, 0};
  CHECK(test::compiled(policy, {"public"}, offset).allow[0].expires_ns == 1);
  policy.rules[0].expires_at = base::WallTime{253402300799, 0};  // the year 9999
  CHECK(test::compiled(policy, {"public"}, offset).allow[0].expires_ns > boot_ns(kLate));
}

TEST_CASE("digests name what is said and what is written, whatever the order of entries") {
  const model::EgressPolicy one{{test::rule("192.0.2.0/24", {443, 80})}, {}};
  const model::EgressPolicy same{{test::rule("192.0.2.0/24", {80, 443})}, {}};
  model::EgressPolicy limited = one;
  limited.quota.bytes = 1;
  const CompiledPolicy a = test::compiled(one, {"public"});
  CHECK(a.policy_digest == test::compiled(same, {"public"}).policy_digest);
  CHECK(a.policy_digest == test::compiled(one, {"public"}, 12345).policy_digest);
  CHECK(a.policy_digest != test::compiled(limited, {"public"}).policy_digest);
  auto deny = a.deny;
  auto allow = a.allow;
  std::reverse(deny.begin(), deny.end());
  std::reverse(allow.begin(), allow.end());
  CHECK(map_digest(deny, allow) == map_digest(a.deny, a.allow));
  allow.pop_back();
  CHECK(map_digest(deny, allow) != map_digest(a.deny, a.allow));
}
