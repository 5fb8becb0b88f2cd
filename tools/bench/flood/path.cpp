// bench-path FOLDER filter|nft|none flood|stream AMOUNT: one sample of what stands between a cell and a host behind the
// router. The same 1,000 addresses are allowed in each case: by the cell's filter and the router's table, as a job has them; by
// nftables with a set and connection tracking in their place; or by nothing at all.
//   flood   AMOUNT UDP datagrams to all of them in turn, as fast as the cell can send them
//   stream  AMOUNT bytes over one TCP connection
// The sample's clock runs from the first packet to the last. A datagram that does not arrive is a failure.
#include <bpf/bpf.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <string>
#include <string_view>

#include "admit/egress_grants.hpp"
#include "model/ipv4.hpp"
#include "netpolicy/attach.hpp"
#include "netpolicy/filter.hpp"
#include "netpolicy/names.hpp"
#include "netpolicy/netns.hpp"
#include "netpolicy/nft.hpp"
#include "tools/bench/flood/network.hpp"
#include "tools/bench/flood/sender.hpp"

namespace {

using namespace cellrund;
using namespace cellrund::netpolicy;
using base::Error;

constexpr std::uint32_t kRules = 1000;
constexpr std::uint32_t kCellAddress = 0x64400001;                // 100.64.0.1, that of slot 0
constexpr std::uint64_t kAtOnce = 1'000'000'000;                  // packets a second: no pause between them
constexpr std::uint64_t kWarmUp = 2;                              // rounds over all targets before the clock starts
constexpr const char* kNft = "/usr/sbin/nft";

// What the stream goes to, and the flood's targets.
model::EgressPolicy policy() {
  model::EgressPolicy out;
  out.rules.push_back({model::Ipv4Prefix{bench::kSink, 32}, {bench::kSinkPort}, model::Transport::kTcp, {}});
  for (std::uint32_t i = 1; i < kRules; ++i) {
    out.rules.push_back({model::Ipv4Prefix{bench::kFirstTarget + i - 1, 32}, {bench::kTargetPort}, model::Transport::kUdp, {}});
  }
  return out;
}

std::string nft_rules(const model::EgressPolicy& policy) {
  std::string elements;
  for (const model::EgressRule& rule : policy.rules) {
    elements += (elements.empty() ? "" : ", ") + model::format_ipv4(std::get<model::Ipv4Prefix>(rule.to).address) + " . " +
                (rule.protocol == model::Transport::kTcp ? "tcp" : "udp") + " . " + std::to_string(rule.ports.front());
  }
  return "table ip bench {\n"
         "  set allowed { type ipv4_addr . inet_proto . inet_service; elements = { " + elements + " } }\n"
         "  chain forward {\n"
         "    type filter hook forward priority filter; policy drop;\n"
         "    ct state established,related accept\n"
         "    ip daddr . meta l4proto . th dport @allowed accept\n"
         "  }\n"
         "}\n";
}

// Takes the filter and the router's own table away; `ruleset` comes in their place.
base::Status stand_aside(const Router& router, const std::string& pins, const std::string& ruleset) {
  for (const char* name : {kPinLinkOut, kPinLinkIn}) {
    const base::UniqueFd link = CR_TRY(open_pin(pins + "/" + name));
    if (::bpf_link_detach(link.get()) != 0) {
      return Error::from_errno("detach the filter");
    }
  }
  const base::UniqueFd netns = CR_TRY(open_netns(router.netns_path()));
  return in_netns(netns.get(), [&] { return run_nft(kNft, "flush ruleset\n" + ruleset); });
}

base::Status flood(const NetworkedCell& cell, int sink, std::uint64_t packets, bench::Sample& sample) {
  const std::atomic<bool> stop{false};
  bench::Flood what{.source = kCellAddress, .packets = kWarmUp * kRules, .per_second = kAtOnce, .targets = kRules - 1};
  (void)CR_TRY(in_netns(cell.netns_fd(), [&] { return bench::send_flood(what, stop); }));
  what.packets = packets;
  const std::uint64_t before = CR_TRY(bench::arrived_at(sink));
  sample.start_ns = bench::now_ns();
  const bench::Flooded sent = CR_TRY(in_netns(cell.netns_fd(), [&] { return bench::send_flood(what, stop); }));
  sample.end_ns = bench::now_ns();
  const std::uint64_t arrived = CR_TRY(bench::arrived_at(sink)) - before;
  if (arrived < packets) {
    sample.failure = std::to_string(packets - arrived) + " of " + std::to_string(packets) + " datagrams did not arrive, " +
                     std::to_string(sent.refused) + " of them dropped by the link";
  }
  return base::ok();
}

base::Status stream(const NetworkedCell& cell, int sink, std::uint64_t bytes, bench::Sample& sample) {
  const bench::Connection connection = CR_TRY(bench::connect_to_sink(cell.netns_fd(), sink));
  bench::Sample unused;
  CR_CHECK(bench::transfer(connection, bytes / 8, unused));  // until the windows are open
  return bench::transfer(connection, bytes, sample);
}

base::Result<bench::Sample> take(const bench::Place& place, std::string_view side, bool flooding, std::uint64_t amount) {
  const Router router = CR_TRY(place.open());
  const base::UniqueFd sink = CR_TRY(bench::make_sink(router));
  bench::NoJournal journal;
  const model::EgressPolicy egress = policy();
  auto relaxations = admit::EgressGrants::from(std::vector<std::string>{"public"}).relaxations_for(egress);
  const NetworkedCell cell = CR_TRY(router.connect(
      place.cell(0), journal, {.egress = egress, .relaxations = relaxations, .expect_blocked = {}, .on_alarm = {}}));
  if (side != "filter") {
    CR_CHECK(stand_aside(router, pin_dir(place.folder(), place.cell(0)), side == "nft" ? nft_rules(egress) : ""));
  }
  bench::Sample sample;
  CR_CHECK(flooding ? flood(cell, sink.get(), amount, sample) : stream(cell, sink.get(), amount, sample));
  return sample;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view side = argc == 5 ? argv[2] : "";
  const std::string_view traffic = argc == 5 ? argv[3] : "";
  const std::string_view digits = argc == 5 ? argv[4] : "";
  std::uint64_t amount = 0;
  (void)std::from_chars(digits.data(), digits.data() + digits.size(), amount);
  if ((side != "filter" && side != "nft" && side != "none") || (traffic != "flood" && traffic != "stream") || amount == 0) {
    std::fputs("usage: bench-path FOLDER filter|nft|none flood|stream AMOUNT\n", stderr);
    return 64;
  }
  const bench::Place place(argv[1]);
  const auto sample = take(place, side, traffic == "flood", amount);
  if (!sample.ok()) {
    std::fprintf(stderr, "bench-path: %s\n", sample.error().message().c_str());
    return 1;
  }
  std::printf("%s\n", base::json::write(bench::to_json(*sample)).c_str());
  return 0;
}
