// bench-flood FOLDER filter|drop BYTES: one sample of a neighbour's throughput. A cell floods at 100,000 denied packets
// a second; meanwhile another cell sends BYTES over one TCP connection to a host behind the router. In front of the
// flood stands the cell's filter, or in its place a program that drops everything unread. The sample's clock runs from
// the first byte of the transfer to its last.
#include <bpf/bpf.h>

#include <charconv>
#include <cstdio>
#include <string>
#include <string_view>
#include <thread>

#include "admit/egress_grants.hpp"
#include "netpolicy/attach.hpp"
#include "netpolicy/filter.hpp"
#include "netpolicy/names.hpp"
#include "netpolicy/netns.hpp"
#include "tools/bench/flood/network.hpp"
#include "tools/bench/flood/sender.hpp"

namespace {

using namespace cellrund;
using namespace cellrund::netpolicy;
using base::Error;

base::Status drop_instead(const std::string& pins) {
  const base::UniqueFd drop = CR_TRY(load_drop_all());
  for (const char* name : {kPinLinkOut, kPinLinkIn}) {
    const base::UniqueFd link = CR_TRY(open_pin(pins + "/" + name));
    if (::bpf_link_update(link.get(), drop.get(), nullptr) != 0) {
      return Error::from_errno("put a plain drop in the filter's place");
    }
  }
  return base::ok();
}

base::Result<bench::Sample> take(const bench::Place& place, bool filtered, std::uint64_t bytes) {
  const Router router = CR_TRY(place.open());
  const base::UniqueFd sink = CR_TRY(bench::make_sink(router));
  bench::NoJournal journal;
  const NetworkedCell flooding = CR_TRY(router.connect(place.cell(0), journal));
  model::EgressPolicy egress{{{*model::parse_ipv4_prefix("198.51.100.2/32"), {bench::kSinkPort}, model::Transport::kTcp, {}}}, {}};
  auto relaxations = admit::EgressGrants::from(std::vector<std::string>{"public"}).relaxations_for(egress);
  const NetworkedCell neighbour = CR_TRY(router.connect(
      place.cell(1), journal, {.egress = egress, .relaxations = relaxations, .expect_blocked = {}, .on_alarm = {}}));
  if (!filtered) {
    CR_CHECK(drop_instead(pin_dir(place.folder(), place.cell(0))));
  }
  const bench::Connection connection = CR_TRY(bench::connect_to_sink(neighbour.netns_fd(), sink.get()));

  std::atomic<bool> stop{false};
  base::Result<bench::Flooded> flooded = bench::Flooded{};
  bench::Sample sample;
  base::Status done = base::ok();
  {
    const std::jthread sender([&] {
      flooded = in_netns(flooding.netns_fd(), [&] {
        return bench::send_flood({.source = 0x64400001, .packets = ~std::uint64_t{0}, .targets = 1}, stop);
      });
    });
    done = bench::transfer(connection, bytes / 8, sample);  // until the flood and the connection are steady
    if (done.ok()) {
      sample = {};
      done = bench::transfer(connection, bytes, sample);
    }
    stop = true;
  }
  CR_CHECK(std::move(done));
  const bench::Flooded sent = CR_TRY(std::move(flooded));
  sample.details.set("flooded", static_cast<std::int64_t>(sent.sent));
  sample.details.set("refusedByLink", static_cast<std::int64_t>(sent.refused));
  return sample;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view side = argc == 4 ? argv[2] : "";
  const std::string_view digits = argc == 4 ? argv[3] : "";
  std::uint64_t bytes = 0;
  (void)std::from_chars(digits.data(), digits.data() + digits.size(), bytes);
  if ((side != "filter" && side != "drop") || bytes == 0) {
    std::fputs("usage: bench-flood FOLDER filter|drop BYTES\n", stderr);
    return 64;
  }
  const bench::Place place(argv[1]);
  const auto sample = take(place, side == "filter", bytes);
  if (!sample.ok()) {
    std::fprintf(stderr, "bench-flood: %s\n", sample.error().message().c_str());
    return 1;
  }
  std::printf("%s\n", base::json::write(bench::to_json(*sample)).c_str());
  return 0;
}
