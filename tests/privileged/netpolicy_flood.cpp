// A cell that floods: what its filter, its account and its neighbour make of it. Needs root.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <functional>
#include <thread>

#include "tests/support/egress_packets.hpp"
#include "tests/support/sink_host.hpp"
#include "tools/bench/flood/sender.hpp"

using namespace cellrund;
using namespace cellrund::netpolicy;
using namespace cellrund::test;

namespace {

constexpr std::uint32_t kCell = 0x64400001;  // 100.64.0.1
constexpr std::uint64_t kPackets = 150'000;

// A cell beside the flooding one, that may reach the sink.
NetworkedCell connect_neighbour(const TestNode& node, const Router& router) {
  model::EgressPolicy egress{{rule("198.51.100.2/32", {443})}, {}};
  auto relaxations = admit::EgressGrants::from(std::vector<std::string>{"public"}).relaxations_for(egress);
  Recorder journal;
  auto cell = router.connect(node.cell(1), journal,
                             {.egress = egress, .relaxations = relaxations, .expect_blocked = {}, .on_alarm = {}});
  REQUIRE_MESSAGE(cell.ok(), (cell.ok() ? "" : cell.error().message()));
  return std::move(*cell);
}

bench::Flooded flood(const NetworkedCell& cell, std::uint32_t targets, const std::function<void()>& meanwhile) {
  const std::atomic<bool> stop{false};
  base::Result<bench::Flooded> done = bench::Flooded{};
  {
    const std::jthread sender([&] {
      done = in_netns(cell.netns_fd(), [&] { return bench::send_flood({kCell, kPackets, 100'000, targets}, stop); });
    });
    meanwhile();
  }
  REQUIRE_MESSAGE(done.ok(), (done.ok() ? "" : done.error().message()));
  return *done;
}

}  // namespace

TEST_CASE("a flood is dropped and accounted for to the last packet, and a neighbour goes on") {
  for (const Attach attach : {Attach::kTcx, Attach::kClsact}) {
    for (const std::uint32_t targets : {1U, 5000U}) {
      CAPTURE(to_string(attach));
      CAPTURE(targets);
      const TestNode node;
      const Router router = node.open(attach);
      const SinkHost sink(router);
      const base::UniqueFd web = sink.serve(SOCK_STREAM, 443);
      const NetworkedCell cell = connect(node, router);
      const NetworkedCell neighbour = connect_neighbour(node, router);
      const std::uint64_t behind = nft_counter(router, "passed");

      std::uint64_t carried = 0;
      const bench::Flooded done = flood(cell, targets, [&] {
        const Connection connection = open_connection(neighbour.netns_fd(), web.get(), kSink, 443, 20s);
        REQUIRE(connection.open());
        for (; carried < 20 && carries(connection.cell.get(), connection.sink.get(), 20s); ++carried) {
        }
      });
      CHECK(carried == 20);
      CHECK(done.sent == kPackets);

      const auto facts = cell.read_facts();
      REQUIRE(facts.ok());
      CHECK(counter(*facts, "default-deny") - counter(cell.facts(), "default-deny") == done.sent - done.refused);
      CHECK(facts->seen + facts->suppressed + facts->lost == facts->counted);
      CHECK(facts->imbalance == "");
      CHECK(facts->lost == 0);
      if (targets == 1) {
        CHECK(facts->suppressed == 0);
      } else {
        CHECK(facts->suppressed > 0);
        CHECK(facts->decisions.size() > CR_MAX_DECISIONS);
        CHECK(facts->decisions.size() <= CR_MAX_DECISIONS + Samples::kMost + 64);  // see read_decisions()
      }
      CHECK(nft_counter(router, "unmarked") == 0);
      const auto beside = neighbour.read_facts();
      REQUIRE(beside.ok());
      CHECK(nft_counter(router, "passed") - behind <= counter(*beside, "allowed") + counter(*beside, "established"));
      CHECK(cell.verify_attached().ok());
    }
  }
}

TEST_CASE("the final account balances also while the flood goes on") {
  const TestNode node;
  const Router router = node.open(Attach::kAuto);
  const NetworkedCell cell = connect(node, router);
  const bench::Flooded done = flood(cell, 1, [&] {
    while (counter(settled(node, 0, cell.facts().counted + 1), "default-deny") < 1000) {
    }
    const auto facts = cell.final_facts();
    REQUIRE(facts.ok());
    CHECK(facts->imbalance == "");
    CHECK(facts->seen + facts->suppressed + facts->lost == facts->counted);
  });
  CHECK(done.sent > 0);
}

TEST_CASE("a daemon that died leaves a gap in the account, and only where it had taken samples") {
  const TestNode node;
  const Router router = node.open(Attach::kAuto);
  const NetworkedCell cell = connect(node, router);
  (void)flood(cell, 5000, [] {});
  REQUIRE(cell.read_facts().ok());  // takes the samples out of the ring
  const auto facts = read_facts(node.cell(0), node.run_dir);
  REQUIRE(facts.ok());
  CHECK(facts->imbalance.starts_with("default-deny: "));
  CHECK(facts->seen + facts->suppressed + facts->lost < facts->counted);
}

int main(int argc, char** argv) {
  if (::geteuid() != 0) {
    std::puts("skipped: needs root");
    return 77;
  }
  doctest::Context context(argc, argv);
  return context.run();
}
