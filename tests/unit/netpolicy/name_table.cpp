#include "netpolicy/resolver/name_table.hpp"

#include <doctest/doctest.h>

#include "netpolicy/explain.hpp"
#include "tests/support/egress_packets.hpp"

using namespace cellrund;
using namespace cellrund::netpolicy;
using resolver::Admitted;
using resolver::NameTable;

namespace {

constexpr std::uint64_t kSecond = 1'000'000'000;
constexpr std::uint64_t kNow = 1000 * kSecond;

model::EgressRule to_name(const char* name, std::vector<std::uint16_t> ports,
                          std::optional<base::WallTime> expires = {}) {
  return {model::host_name_of(name), std::move(ports), model::Transport::kTcp, expires};
}
CompiledPolicy policy_of(std::vector<model::EgressRule> rules, std::vector<std::string> grants = {"public"}) {
  return test::compiled({std::move(rules), {}}, std::move(grants));
}
std::uint32_t address(const char* text) {
  return *model::parse_ipv4(text);
}
// The reason for which a name of the policy cannot have this address; CR_REASONS: it can.
std::uint32_t denied(const CompiledPolicy& policy, const char* text) {
  const std::uint32_t one = address(text);
  const Admitted got = NameTable(policy).admit("api.example.com", 60, {&one, 1}, kNow);
  CHECK((got.accepted == 0) == (got.denied.size() == 1));
  CHECK(got.put.empty() == (got.accepted == 0));
  return got.denied.empty() ? std::uint32_t{CR_REASONS} : got.denied[0].second;
}

}  // namespace

TEST_CASE("a policy with names opens the resolver's port at the gateway, and nothing else of it") {
  const CompiledPolicy policy = policy_of({to_name("api.example.com", {443}), test::rule("0.0.0.0/0", {80})});
  const auto verdict = [&](std::uint16_t port, std::uint8_t protocol, const CompiledPolicy& of) {
    return Classifier(test::packet_config(), of)
        .out(test::packet(test::kCellAddress - 1, port, protocol), test::armed_conditions())
        .verdict;
  };
  CHECK(verdict(53, test::kUdp, policy) == CR_ALLOWED);
  CHECK(verdict(53, test::kTcp, policy) == CR_ALLOWED);
  CHECK(verdict(80, test::kTcp, policy) == CR_ROUTER);
  CHECK(verdict(443, test::kTcp, policy) == CR_ROUTER);
  CHECK(verdict(53, test::kUdp, policy_of({test::rule("0.0.0.0/0", {53}, model::Transport::kUdp)})) == CR_ROUTER);
  CHECK(explain(policy, *parse_target("100.64.0.0:53/udp"), kNow).resolver);
  CHECK(policy.policy_digest !=
        policy_of({to_name("*.api.example.com", {443}), test::rule("0.0.0.0/0", {80})}).policy_digest);
}

TEST_CASE("a name has no address that the policy keeps closed") {
  const CompiledPolicy policy = policy_of({to_name("api.example.com", {443}), test::rule("10.2.0.0/17", {22})},
                                          {"public", "private:10.2.0.0/16"});
  const std::pair<const char*, unsigned> rows[] = {{"198.51.100.7", CR_REASONS},    {"10.2.3.4", CR_REASONS},
                                                   {"10.2.200.1", CR_PRIVATE},      {"10.3.0.1", CR_PRIVATE},
                                                   {"192.168.0.1", CR_PRIVATE},
                                                   {"10.2.0.1", CR_HOST},           {"203.0.113.250", CR_HOST},
                                                   {"127.0.0.1", CR_LOOPBACK},      {"169.254.169.254", CR_METADATA},
                                                   {"169.254.1.1", CR_LINK_LOCAL},  {"100.64.0.0", CR_ROUTER},
                                                   {"100.64.0.9", CR_CELL_NETWORK}, {"100.100.100.200", CR_METADATA},
                                                   {"224.0.0.1", CR_MULTICAST},     {"255.255.255.255", CR_BROADCAST},
                                                   {"0.0.0.0", CR_THIS_NETWORK},    {"240.0.0.1", CR_RESERVED}};
  for (const auto& [text, reason] : rows) {
    CAPTURE(text);
    CHECK(denied(policy, text) == reason);
  }
  // A key that opens a private range alone reaches no public address by a name either.
  const CompiledPolicy inner = policy_of({to_name("api.example.com", {443})}, {"private:10.2.0.0/16"});
  CHECK(denied(inner, "10.2.3.4") == CR_REASONS);
  CHECK(denied(inner, "198.51.100.7") == CR_DEFAULT_DENY);
}

TEST_CASE("a name that the policy does not have opens nothing, whatever the resolver says") {
  NameTable table(policy_of({to_name("api.example.com", {443}), to_name("*.wild.example", {443})}));
  const std::uint32_t one = address("198.51.100.7");
  for (const char* name : {"other.example.com", "wild.example", "x.api.example.com", "", "API.example.com"}) {
    CAPTURE(name);
    CHECK(table.admit(name, 60, {&one, 1}, kNow).accepted == 0);
  }
  CHECK(table.admit("a.b.wild.example", 60, {&one, 1}, kNow).accepted == 1);
  CHECK(table.size() == 1);
}

TEST_CASE("a public name bound to a private address reaches it only where a rule of the job holds that address") {
  const std::vector<std::string> grants{"public", "private:10.0.0.0/8"};
  const model::EgressRule name = to_name("api.example.com", {443});
  CHECK(denied(policy_of({name}, grants), "10.0.0.5") == CR_PRIVATE);
  CHECK(denied(policy_of({name, test::rule("10.0.0.0/24", {22})}, grants), "10.0.0.5") == CR_REASONS);
  CHECK(denied(policy_of({name, test::rule("10.0.1.0/24", {22})}, grants), "10.0.0.5") == CR_PRIVATE);
  const auto past = test::rule("10.0.0.0/24", {22}, model::Transport::kTcp, base::WallTime{900, 0});
  CHECK(denied(policy_of({name, past}, grants), "10.0.0.5") == CR_PRIVATE);
  CHECK(denied(policy_of({name}, {"private:10.0.0.0/8"}), "10.0.0.5") == CR_REASONS);
}

TEST_CASE("a name opens no target that the job expects to be blocked") {
  const std::vector<NamedService> blocked{{model::Transport::kTcp, 443, address("198.51.100.7")},
                                          {model::Transport::kUdp, 443, address("198.51.100.8")}};
  NameTable table(policy_of({to_name("api.example.com", {443, 80}), to_name("other.example.com", {80})}), blocked);
  const std::vector<std::uint32_t> both{address("198.51.100.7"), address("198.51.100.8")};
  const Admitted got = table.admit("api.example.com", 60, both, kNow);
  CHECK(got.accepted == 0b10);  // TCP is not UDP
  REQUIRE(got.denied.size() == 1);
  CHECK(got.denied[0] == std::pair{both[0], std::uint32_t{CR_DEFAULT_DENY}});
  for (const auto& [service, entry] : got.put) {
    CHECK(service.address == both[1]);
  }
  CHECK(table.admit("other.example.com", 60, both, kNow).accepted == 0b11);  // no rule opens port 443 there
}

TEST_CASE("entries hold for their TTL, within bounds and no longer than their rule, and go when they have expired") {
  const base::WallTime end{1100, 0};
  NameTable table(policy_of({to_name("api.example.com", {443, 80}), to_name("brief.example.com", {443}, end)}));
  const std::uint32_t one = address("198.51.100.7"), two = address("198.51.100.8");
  const auto until = [&](const char* name, std::uint32_t ttl, const std::uint32_t& to) {
    return table.admit(name, ttl, {&to, 1}, kNow).put.at(0).second.expires_ns;
  };
  CHECK(until("api.example.com", 0, one) == kNow + 35 * kSecond);
  CHECK(until("api.example.com", 300, one) == kNow + 305 * kSecond);
  CHECK(until("api.example.com", 0, one) == kNow + 305 * kSecond);  // not taken back
  CHECK(until("api.example.com", 1'000'000, one) == kNow + 3605 * kSecond);
  CHECK(until("brief.example.com", 3000, two) == 1100 * kSecond);
  const Admitted late = table.admit("brief.example.com", 60, {&two, 1}, 1100 * kSecond);
  CHECK(late.accepted == 0);  // the rule is over
  CHECK(late.erase == std::vector<NamedService>{{model::Transport::kTcp, 443, two}});
  CHECK(table.size() == 2);
  (void)table.admit("other.example.com", 60, {}, kNow + 4000 * kSecond);
  CHECK(table.size() == 0);
}

TEST_CASE("where rules share a name, each service holds as long as the longest of them") {
  NameTable table(
      policy_of({to_name("api.example.com", {443}, base::WallTime{1100, 0}), to_name("*.example.com", {443, 80})},
                {"public", "wildcard:*.example.com"}));
  const std::uint32_t one = address("198.51.100.7");
  const Admitted got = table.admit("api.example.com", 60, {&one, 1}, kNow);
  REQUIRE(got.put.size() == 2);
  CHECK(got.put[0].first.port == 80);
  CHECK(got.put[1].second.rule == 1);
  CHECK(got.put[1].second.rule_expires_ns == CR_NEVER);
}

TEST_CASE("the table takes no more than the map does") {
  NameTable table(policy_of({to_name("api.example.com", {443, 80})}));
  std::uint32_t next = address("198.18.0.0") - (1U << 20U);
  std::size_t accepted = 0;
  for (int round = 0; round < 100; ++round) {
    std::vector<std::uint32_t> addresses(64);
    for (std::uint32_t& one : addresses) {
      one = next++;
    }
    const Admitted got = table.admit("api.example.com", 600, addresses, kNow);
    accepted += got.put.size();
    for (const auto& [one, reason] : got.denied) {
      CHECK(resolver::denial_name(reason) == "table-full");
    }
  }
  CHECK(accepted == CR_MAX_NAMED);
  CHECK(table.size() == CR_MAX_NAMED);
}

TEST_CASE("an entry that could not be written is neither in the table nor in the map, and its address is not accepted") {
  NameTable table(policy_of({to_name("api.example.com", {443})}));
  const std::vector<std::uint32_t> both{address("198.51.100.7"), address("198.51.100.8")};
  std::map<NamedService, NamedEntry> held;
  bool works = true;
  const resolver::NamedMap map{[&](const NamedService& service, const NamedEntry& entry) {
                                 const bool written = works || service.address == both[1];
                                 if (written) {
                                   held[service] = entry;
                                 }
                                 return written;
                               },
                               [&](const NamedService& service) { held.erase(service); }};
  Admitted first = table.admit("api.example.com", 60, both, kNow);
  table.write(first, both, map);
  CHECK(first.accepted == 0b11);
  CHECK(held.size() == 2);
  works = false;  // the renewal of an entry that the map has
  Admitted second = table.admit("api.example.com", 600, both, kNow);
  table.write(second, both, map);
  CHECK(second.accepted == 0b10);
  CHECK(second.denied == std::vector{std::pair{both[0], std::uint32_t{CR_FLOW_TABLE}}});
  CHECK(table.size() == 1);
  CHECK(held.size() == 1);
}

TEST_CASE("the filter opens what a name has while it has it, and keeps its flows until the rule ends") {
  const CompiledPolicy policy = policy_of({to_name("api.example.com", {443})});
  Classifier filter(test::packet_config(), policy);
  Conditions now = test::armed_conditions();
  const auto syn = test::packet(test::kAllowed, 443);
  const auto ack = test::with(syn, test::kTcpFlags, {0x10});
  CHECK(filter.out(syn, now).verdict == CR_DEFAULT_DENY);
  const NamedService service{model::Transport::kTcp, 443, test::kAllowed};
  filter.put_named(service, {now.now_ns + kSecond, now.now_ns + 100 * kSecond, 0});
  CHECK(filter.out(test::packet(test::kAllowed, 444), now).verdict == CR_DEFAULT_DENY);
  CHECK(filter.out(ack, now).verdict == CR_TCP_STATE);
  CHECK(filter.out(syn, now).verdict == CR_ALLOWED);
  now.now_ns += kSecond;
  CHECK(filter.out(ack, now).verdict == CR_ESTABLISHED);
  CHECK(filter.out(test::with(syn, 34, {1, 1}), now).verdict == CR_EXPIRED);  // another port of the cell: a new flow
  filter.erase_named(service);
  CHECK(filter.out(test::with(syn, 34, {1, 1}), now).verdict == CR_DEFAULT_DENY);
  CHECK(filter.out(ack, now).verdict == CR_ESTABLISHED);
  now.now_ns += 100 * kSecond;
  CHECK(filter.out(ack, now).verdict == CR_DEFAULT_DENY);
}
