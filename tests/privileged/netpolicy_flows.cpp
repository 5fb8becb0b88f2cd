// What a policy lets through, on the real kernel: a cell, the router, and a sink host behind it, each in a namespace of
// the test's own. Needs root.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <mutex>
#include <optional>

#include "tests/support/egress_packets.hpp"
#include "tests/support/sink_host.hpp"

using namespace cellrund;
using namespace cellrund::netpolicy;
using namespace cellrund::test;

namespace {

constexpr auto kDenied = 400ms;  // how long something that must not arrive is waited for

struct Alarms {
  std::atomic<int> unproven{0}, quota{0};
  Warden::OnAlarm listener() {
    return [this](Alarm alarm, const std::string&) { ++(alarm == Alarm::kQuota ? quota : unproven); };
  }
};

NetworkPlan plan_of(model::EgressPolicy egress, Alarms& alarms) {
  auto relaxations = admit::EgressGrants::from(std::vector<std::string>{"public"}).relaxations_for(egress);
  return {.egress = std::move(egress), .relaxations = std::move(relaxations), .expect_blocked = {}, .on_alarm = alarms.listener()};
}

NetworkedCell connect_with(const TestNode& node, const Router& router, const NetworkPlan& plan) {
  Recorder journal;
  auto cell = router.connect(node.cell(0), journal, plan);
  REQUIRE_MESSAGE(cell.ok(), (cell.ok() ? "" : cell.error().message()));
  return std::move(*cell);
}

model::EgressFacts facts_of(const TestNode& node) {
  auto facts = read_facts(node.cell(0), node.run_dir);
  REQUIRE(facts.ok());
  return std::move(*facts);
}

base::WallTime in_time(std::chrono::seconds time) {
  base::WallTime out = base::WallTime::now();
  out.seconds += time.count();
  return out;
}

template <typename Condition>
bool within(std::chrono::milliseconds budget, Condition condition) {
  const base::Deadline deadline = base::Deadline::after(budget);
  while (!condition()) {
    if (deadline.expired()) {
      return false;
    }
    std::this_thread::yield();
  }
  return true;
}

}  // namespace

TEST_CASE("an allowed address and port passes both ways, and nothing beside it") {
  for (const Attach attach : {Attach::kTcx, Attach::kClsact}) {
    CAPTURE(to_string(attach));
    const TestNode node;
    const Router router = node.open(attach);
    const SinkHost sink(router);
    const base::UniqueFd web = sink.serve(SOCK_STREAM, 443);
    const base::UniqueFd other = sink.serve(SOCK_STREAM, 444);
    const base::UniqueFd datagrams = sink.serve(SOCK_DGRAM, 443);
    const base::UniqueFd names = sink.serve(SOCK_DGRAM, 53);
    Alarms alarms;
    const NetworkedCell cell = connect_with(
        node, router, plan_of({{rule("198.51.100.2/32", {443}), rule("198.51.100.0/24", {53}, model::Transport::kUdp)}, {}}, alarms));
    CHECK(cell.facts().relaxations == std::vector<std::string>{"public"});
    CHECK(cell.facts().policy_digest.starts_with("sha256:"));

    const Connection connection = open_connection(cell.netns_fd(), web.get(), kSink, 443);
    REQUIRE(connection.open());
    CHECK(carries(connection.cell.get(), connection.sink.get(), 5s));
    CHECK(carries(connection.sink.get(), connection.cell.get(), 5s));
    // More than one segment, so that offloaded packets pass as well.
    const std::string bulk(200'000, 'b');
    std::size_t sent = 0, received = 0;
    std::string buffer(65536, '\0');
    CHECK(within(20s, [&] {
      if (sent < bulk.size()) {
        const ssize_t n = ::send(connection.cell.get(), bulk.data() + sent, bulk.size() - sent, MSG_NOSIGNAL);
        sent += n > 0 ? static_cast<std::size_t>(n) : 0;
      }
      const ssize_t n = ::recv(connection.sink.get(), buffer.data(), buffer.size(), 0);
      received += n > 0 ? static_cast<std::size_t>(n) : 0;
      return received == bulk.size();
    }));
    const base::UniqueFd query = start_connect(cell.netns_fd(), SOCK_DGRAM, kSink, 53);
    CHECK(carries(query.get(), names.get(), 5s));

    CHECK_FALSE(open_connection(cell.netns_fd(), other.get(), kSink, 444, kDenied).open());
    CHECK_FALSE(open_connection(cell.netns_fd(), web.get(), kSink + 1, 443, kDenied).open());
    const base::UniqueFd wrong = start_connect(cell.netns_fd(), SOCK_DGRAM, kSink, 443);
    CHECK_FALSE(carries(wrong.get(), datagrams.get(), kDenied));

    const model::EgressFacts facts = facts_of(node);
    CHECK(counter(facts, "allowed") == 2);
    CHECK(counter(facts, "established") > 2);
    CHECK(counter(facts, "reply") > 2);
    CHECK(counter(facts, "default-deny") >= counter(cell.facts(), "default-deny") + 3);
    CHECK(facts.seen + facts.suppressed + facts.lost == facts.counted);
    CHECK(facts.used_connections == 2);
    CHECK(facts.used_bytes > bulk.size());
    CHECK(std::count_if(facts.decisions.begin(), facts.decisions.end(), [](const auto& d) { return d.verdict == "allowed"; }) == 2);
    CHECK(nft_counter(router, "passed") > 0);
    CHECK(nft_counter(router, "returned") > 0);
    CHECK(nft_counter(router, "unmarked") == 0);
    CHECK(cell.verify_attached().ok());
    CHECK(alarms.unproven == 0);
  }
}

TEST_CASE("the sink cannot reach a cell that did not call it") {
  const TestNode node;
  const Router router = node.open(Attach::kAuto);
  const SinkHost sink(router);
  Alarms alarms;
  const NetworkedCell cell = connect_with(node, router, plan_of({{rule("198.51.100.2/32", {443})}, {}}, alarms));
  const base::UniqueFd caller = sink.serve(SOCK_DGRAM, 443);
  const sockaddr_in to = socket_address(0x64400001, 7);
  CHECK(::sendto(caller.get(), "x", 1, 0, reinterpret_cast<const sockaddr*>(&to), sizeof to) == 1);
  CHECK(within(5s, [&] { return counter(facts_of(node), "inbound") > counter(cell.facts(), "inbound"); }));
}

TEST_CASE("a rule's end cuts the flows that it allowed") {
  const TestNode node;
  const Router router = node.open(Attach::kAuto);
  const SinkHost sink(router);
  const base::UniqueFd web = sink.serve(SOCK_STREAM, 443);
  Alarms alarms;
  const base::WallTime end = in_time(3s);
  const NetworkedCell cell = connect_with(node, router, plan_of({{rule("198.51.100.2/32", {443}, model::Transport::kTcp, end)}, {}}, alarms));
  const Connection connection = open_connection(cell.netns_fd(), web.get(), kSink, 443);
  REQUIRE(connection.open());
  CHECK(carries(connection.cell.get(), connection.sink.get(), 2s));
  CHECK(within(10s, [&] { return base::WallTime::now() > end; }));
  CHECK_FALSE(carries(connection.cell.get(), connection.sink.get(), kDenied));
  CHECK_FALSE(carries(connection.sink.get(), connection.cell.get(), kDenied));
  CHECK_FALSE(open_connection(cell.netns_fd(), web.get(), kSink, 443, kDenied).open());
  CHECK(counter(facts_of(node), "expired") > 0);
}

TEST_CASE("the kill switch cuts every flow at once, for good") {
  const TestNode node;
  const Router router = node.open(Attach::kAuto);
  const SinkHost sink(router);
  const base::UniqueFd web = sink.serve(SOCK_STREAM, 443);
  Alarms alarms;
  const NetworkedCell cell = connect_with(node, router, plan_of({{rule("198.51.100.2/32", {443})}, {}}, alarms));
  const Connection connection = open_connection(cell.netns_fd(), web.get(), kSink, 443);
  REQUIRE(connection.open());
  CHECK(carries(connection.cell.get(), connection.sink.get(), 5s));
  CHECK_FALSE(*router.kill_switch());
  REQUIRE(router.set_kill_switch(true).ok());
  CHECK(*router.kill_switch());
  CHECK(*router.kill_switch_cuts(node.cell(0)));
  CHECK(router.kill_switch_cuts(node.cell(1)).error().code() == base::Errc::kNotFound);
  CHECK_FALSE(carries(connection.cell.get(), connection.sink.get(), kDenied));
  CHECK_FALSE(carries(connection.sink.get(), connection.cell.get(), kDenied));
  CHECK_FALSE(open_connection(cell.netns_fd(), web.get(), kSink, 443, kDenied).open());
  CHECK(counter(facts_of(node), "kill-switch") > 0);
  REQUIRE(router.set_kill_switch(false).ok());
  CHECK_FALSE(carries(connection.cell.get(), connection.sink.get(), kDenied));  // of another epoch
  CHECK(open_connection(cell.netns_fd(), web.get(), kSink, 443).open());
}

TEST_CASE("the canary at the end is exact beside traffic that goes on, and a kill switch is no proof") {
  const TestNode node;
  const Router router = node.open(Attach::kAuto);
  const SinkHost sink(router);
  const base::UniqueFd web = sink.serve(SOCK_STREAM, 443);
  Alarms alarms;
  NetworkPlan plan = plan_of({{rule("198.51.100.2/32", {443})}, {}}, alarms);
  plan.expect_blocked = {{"198.51.100.2", 80, "tcp"}, {"198.51.100.2", 80, "tcp"}, {"203.0.113.9", 53, "udp"}};
  const NetworkedCell cell = connect_with(node, router, plan);
  const Connection connection = open_connection(cell.netns_fd(), web.get(), kSink, 443);
  REQUIRE(connection.open());
  {
    std::atomic<bool> stop{false};
    std::jthread traffic([&] {
      const base::UniqueFd denied = start_connect(cell.netns_fd(), SOCK_DGRAM, kSink, 9);
      while (!stop) {
        (void)::send(connection.cell.get(), "x", 1, MSG_NOSIGNAL);
        (void)::send(denied.get(), "x", 1, MSG_NOSIGNAL);
      }
    });
    const auto end = router.prove_end(cell);
    stop = true;
    REQUIRE_MESSAGE(end.ok(), (end.ok() ? "" : end.error().message()));
    CHECK_MESSAGE(end->canary.proven, end->canary.why);
    CHECK(end->canary.sent == 7);
    CHECK(end->canary.counted == 7);
  }
  REQUIRE(router.set_kill_switch(true).ok());
  const auto cut = router.prove_end(cell);
  REQUIRE(cut.ok());
  CHECK_FALSE(cut->canary.proven);
  CHECK_FALSE(cut->refuted);
  CHECK(cut->canary.blocked == cut->canary.sent);
}

TEST_CASE("a restarted daemon finds the kill switch as it was") {
  const TestNode node;
  {
    const Router router = node.open(Attach::kAuto);
    REQUIRE(router.set_kill_switch(true).ok());
  }
  const Router adopted = node.open(Attach::kAuto);
  CHECK(*adopted.kill_switch());
}

TEST_CASE("a used-up quota cuts everything and is reported") {
  const TestNode node;
  const Router router = node.open(Attach::kAuto);
  const SinkHost sink(router);
  const base::UniqueFd web = sink.serve(SOCK_STREAM, 443);
  Alarms alarms;
  const NetworkedCell cell = connect_with(node, router, plan_of({{rule("198.51.100.2/32", {443})}, {.packets = 20}}, alarms));
  const Connection connection = open_connection(cell.netns_fd(), web.get(), kSink, 443);
  REQUIRE(connection.open());
  int round = 0;
  while (round < 20 && carries(connection.cell.get(), connection.sink.get(), kDenied)) {
    ++round;
  }
  CHECK(round > 0);
  CHECK(round < 20);
  CHECK(within(3s, [&] { return alarms.quota == 1; }));
  const model::EgressFacts facts = facts_of(node);
  CHECK(facts.quota_exhausted);
  CHECK(facts.used_packets == 20);
  CHECK(counter(facts, "allowed") + counter(facts, "established") + counter(facts, "reply") == 20);
  CHECK(counter(facts, "quota") > 0);
  CHECK_FALSE(open_connection(cell.netns_fd(), web.get(), kSink, 443, kDenied).open());
  CHECK(alarms.unproven == 0);
}

TEST_CASE("without anybody who renews the lease, nothing passes after it") {
  const TestNode node;
  const Router router = node.open(Attach::kAuto);
  const SinkHost sink(router);
  const base::UniqueFd web = sink.serve(SOCK_STREAM, 443);
  Alarms alarms;
  std::optional<NetworkedCell> cell = connect_with(node, router, plan_of({{rule("198.51.100.2/32", {443})}, {}}, alarms));
  const auto netns = open_netns(cell->netns_path());
  REQUIRE(netns.ok());
  const Connection connection = open_connection(netns->get(), web.get(), kSink, 443);
  REQUIRE(connection.open());
  // Longer than the lease: the warden renews it.
  CHECK(within(2 * Warden::kLease, [&, end = base::Deadline::after(Warden::kLease + 1s)] { return end.expired(); }));
  CHECK(carries(connection.cell.get(), connection.sink.get(), 2s));
  cell.reset();
  const base::BootTime start = base::BootTime::now();
  CHECK(within(Warden::kLease + 3s, [&] { return counter(facts_of(node), "lease") > 0 || !carries(connection.cell.get(), connection.sink.get(), 200ms); }));
  MESSAGE("the last packet passed " << (base::BootTime::now() - start).count() / 1'000'000 << " ms after the last renewal, or sooner");
  CHECK(base::BootTime::now() - start < 10s);
  CHECK_FALSE(carries(connection.cell.get(), connection.sink.get(), kDenied));
  CHECK(within(5s, [&] { return counter(facts_of(node), "lease") > 0; }));
  CHECK(disconnect(node.cell(0), node.run_dir).empty());
}

TEST_CASE("a filter that is tampered with is found within a second or so, and the cell is cut off") {
  for (const Attach attach : {Attach::kTcx, Attach::kClsact}) {
    CAPTURE(to_string(attach));
    const TestNode node;
    const Router router = node.open(attach);
    const SinkHost sink(router);
    const base::UniqueFd web = sink.serve(SOCK_STREAM, 443);
    Alarms alarms;
    const NetworkedCell cell = connect_with(node, router, plan_of({{rule("198.51.100.2/32", {443})}, {}}, alarms));
    const Connection connection = open_connection(cell.netns_fd(), web.get(), kSink, 443);
    REQUIRE(connection.open());
    if (attach == Attach::kTcx) {
      REQUIRE(base::remove_file(pin_dir(node.run_dir, node.cell(0)) + "/" + kPinLinkOut).ok());
    } else {
      const auto ns = open_netns(router.netns_path());
      REQUIRE(ns.ok());
      const auto removed = in_netns(ns->get(), [&] {
        base::SpawnOptions command;
        command.argv = {"/usr/sbin/tc", "qdisc", "del", "dev", node.cell(0).host_link(), "clsact"};
        return base::run_command(command, "", base::Deadline::after(10s));
      });
      REQUIRE(removed.ok());
    }
    CHECK(within(3s, [&] { return alarms.unproven == 1; }));
    CHECK_FALSE(carries(connection.cell.get(), connection.sink.get(), kDenied));
  }
}

TEST_CASE("a host that is short of descriptors for a moment says nothing about the filter; for longer, nobody vouches for it") {
  const TestNode node;
  const Router router = node.open(Attach::kAuto);
  const SinkHost sink(router);
  const base::UniqueFd web = sink.serve(SOCK_STREAM, 443);
  Alarms alarms;
  const NetworkedCell cell = connect_with(node, router, plan_of({{rule("198.51.100.2/32", {443})}, {}}, alarms));
  const Connection connection = open_connection(cell.netns_fd(), web.get(), kSink, 443);
  REQUIRE(connection.open());
  const auto without_descriptors = [](std::chrono::milliseconds time, auto condition) {
    rlimit kept{};
    REQUIRE(::getrlimit(RLIMIT_NOFILE, &kept) == 0);
    const int free = ::fcntl(0, F_DUPFD_CLOEXEC, 0);
    REQUIRE(free >= 0);
    (void)::close(free);
    const rlimit none{static_cast<rlim_t>(free), kept.rlim_max};
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &none) == 0);
    const bool met = within(time, condition);
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &kept) == 0);
    return met;
  };
  CHECK_FALSE(without_descriptors(1200ms, [&] { return alarms.unproven > 0; }));
  CHECK(within(1s, [end = base::Deadline::after(900ms)] { return end.expired(); }));
  CHECK(alarms.unproven == 0);
  CHECK(carries(connection.cell.get(), connection.sink.get(), 2s));
  CHECK(without_descriptors(10s, [&] { return alarms.unproven == 1; }));
}

TEST_CASE("a job that expects a target blocked which its own rule allows does not start") {
  const TestNode node;
  const Router router = node.open(Attach::kAuto);
  Alarms alarms;
  NetworkPlan plan = plan_of({{rule("198.51.100.2/32", {443})}, {}}, alarms);
  plan.expect_blocked = {{"198.51.100.2", 80, "tcp"}, {"198.51.100.2", 443, "tcp"}};
  Recorder journal;
  const auto cell = router.connect(node.cell(0), journal, plan);
  REQUIRE_FALSE(cell.ok());
  CHECK(cell.error().code() == base::Errc::kFailedPrecondition);
  CHECK(cell.error().message().find("198.51.100.2:443/tcp") != std::string::npos);
}

TEST_CASE("ten thousand rules are written, proven and taken away") {
  const TestNode node;
  const Router router = node.open(Attach::kAuto);
  model::EgressPolicy policy;
  for (std::uint32_t i = 0; i < model::EgressPolicy::kMaxRules; ++i) {
    policy.rules.push_back({model::Ipv4Prefix{0x08000000 + i, 32}, {static_cast<std::uint16_t>(1 + i % 65535), 443}, model::Transport::kTcp, {}});
  }
  Alarms alarms;
  const base::BootTime start = base::BootTime::now();
  const NetworkedCell cell = connect_with(node, router, plan_of(std::move(policy), alarms));
  MESSAGE("connect with 20,000 allow entries took " << (base::BootTime::now() - start).count() / 1'000'000 << " ms");
  CHECK(cell.verify_attached().ok());
}

int main(int argc, char** argv) {
  if (::geteuid() != 0) {
    std::puts("skipped: needs root (network namespaces, mounts, BPF)");
    return 77;
  }
  if (!base::exists("/usr/sbin/nft") || !base::exists("/usr/sbin/tc")) {
    std::puts("skipped: needs /usr/sbin/nft and /usr/sbin/tc");
    return 77;
  }
  if (::unshare(CLONE_NEWNS) != 0 || ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    std::puts("skipped: needs a mount namespace of its own");
    return 77;
  }
  doctest::Context context(argc, argv);
  return context.run();
}
