// bench-filter CASE ENTRIES: what the egress filter takes for a packet of the cell, under a policy of so many allow
// entries, as BPF_PROG_TEST_RUN times it. Prints one sample, as long as a million such packets take.
//
//   established   of an open flow, over and over         hit    opens a flow, each packet another one
//   miss          that no entry allows, over and over    nop    a program that does nothing, over and over
//                                                        nop-once   the same, one packet a call
// A hit cannot be repeated within one call, so its caches are as cold as a system call leaves them.
#include <bpf/bpf.h>
#include <linux/bpf.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <optional>
#include <random>
#include <string_view>
#include <vector>

#include "base/json.hpp"
#include "netpolicy/filter.hpp"
#include "netpolicy/frame.hpp"
#include "tools/bench/sample.hpp"

namespace {

using namespace cellrund;
using namespace cellrund::netpolicy;

constexpr std::uint32_t kCell = 0x64400001, kGateway = 0x64400000;
constexpr std::uint32_t kRules = 0x0b000000,
                        kNowhere = 0x0d000000;  // 11.0.0.0/8 has the rules' addresses, 13.0.0.0/8 none
constexpr std::uint32_t kLowBits = 0x00ffffff;
constexpr std::uint16_t kFirstPort = 443;
constexpr std::uint32_t kPortsPerRule = 10;  // from that many entries on: a job has at most 10,000 rules
constexpr int kRepeats = 2000;
constexpr int kTargets = 200;       // fewer than a cell's table of decisions holds
constexpr int kConnections = 4000;  // fewer than its flow table holds
constexpr int kMillion = 1'000'000;

class Machine {
 public:
  // The same addresses in each run.
  explicit Machine(std::uint32_t entries) {
    const std::uint32_t ports = entries > model::EgressPolicy::kMaxRules ? kPortsPerRule : 1;
    for (std::uint32_t i = 0; i < entries / ports; ++i) {
      std::vector<std::uint16_t> open;
      for (std::uint32_t port = 0; port < ports; ++port) {
        open.push_back(static_cast<std::uint16_t>(kFirstPort + port));
      }
      addresses_.push_back(kRules | (static_cast<std::uint32_t>(random_()) & kLowBits));
      model::EgressRule& rule = policy_.rules.emplace_back();
      rule.to = model::Ipv4Prefix{addresses_.back(), 32};
      rule.ports = std::move(open);
    }
  }

  base::Status load() {
    LIBBPF_OPTS(bpf_map_create_opts, options, .map_flags = BPF_F_RDONLY_PROG);
    node_.reset(
        ::bpf_map_create(BPF_MAP_TYPE_ARRAY, "cellrun_bench", sizeof(std::uint32_t), sizeof(cr_node), 1, &options));
    if (!node_) {
      return base::Error::from_errno("create the node's map");
    }
    const FilterProgram program = CR_TRY(FilterProgram::prepare());
    filter_ = CR_TRY(program.load({{"ffffbe9c"}, "0199c1f2-7b1e-7c3a-9d2e-2f4b6a8c0e11", 0}, make_config(kCell, 1, {}),
                                  compile(policy_, {}, {kGateway, {}, 0}), node_.get()));
    CR_CHECK(filter_->arm());
    const std::uint32_t zero = 0;
    const cr_lease never = CR_NEVER;
    if (::bpf_map_update_elem(filter_->map(MapRole::kLease).fd.get(), &zero, &never, BPF_ANY) != 0) {
      return base::Error::from_errno("give the lease");
    }
    return base::ok();
  }

  // Mean time of a packet in ns. A verdict that is not the expected one is a failure.
  base::Result<double> established() { return repeated(true); }
  base::Result<double> miss() { return repeated(false); }
  base::Result<double> hit() {
    double total = 0;
    for (int i = 0; i < kConnections; ++i) {
      total += CR_TRY(run(filter_->out().fd.get(), frame_to(known(), static_cast<std::uint16_t>(10000 + i)), 1, true));
    }
    return total / kConnections;
  }
  base::Result<double> nop(int repeats) {
    const std::array<std::uint64_t, 2> pass{0x00000000000000b7, 0x0000000000000095};  // r0 = 0 (accept); exit
    const base::UniqueFd program(::bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "nop", "GPL",
                                                 reinterpret_cast<const bpf_insn*>(pass.data()), pass.size(), nullptr));
    if (!program) {
      return base::Error::from_errno("load a program that does nothing");
    }
    const int rounds = repeats == 1 ? kConnections : kTargets;
    double total = 0;
    for (int i = 0; i < rounds; ++i) {
      total += CR_TRY(run(program.get(), frame_to(known(), static_cast<std::uint16_t>(10000 + i)), repeats, true));
    }
    return total / rounds;
  }

 private:
  static base::Bytes frame_to(std::uint32_t address, std::uint16_t source_port) {
    return build_frame({kCellMac, kGatewayMac, kCell, address, 6, source_port, kFirstPort});
  }
  std::uint32_t known() { return addresses_[random_() % addresses_.size()]; }
  static base::Result<double> run(int program, const base::Bytes& frame, int repeats, bool passes) {
    LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = frame.data());
    options.data_size_in = static_cast<std::uint32_t>(frame.size());
    options.repeat = repeats;
    if (::bpf_prog_test_run_opts(program, &options) != 0) {
      return base::Error::from_errno("BPF_PROG_TEST_RUN");
    }
    if ((options.retval == 0) != passes) {
      return base::Error(base::Errc::kFailedPrecondition, passes ? "the filter drops what a rule allows"
                                                                 : "the filter lets through what no rule allows");
    }
    return static_cast<double>(options.duration);
  }
  base::Result<double> repeated(bool passes) {
    double total = 0;
    for (int i = 0; i < kTargets; ++i) {
      const std::uint32_t address = passes ? known() : kNowhere | (static_cast<std::uint32_t>(random_()) & kLowBits);
      const base::Bytes frame = frame_to(address, static_cast<std::uint16_t>(10000 + i));
      (void)CR_TRY(run(filter_->out().fd.get(), frame, 1, passes));  // opens the flow, or records the target
      total += CR_TRY(run(filter_->out().fd.get(), frame, kRepeats, passes));
    }
    return total / kTargets;
  }

  std::mt19937 random_{1};
  std::vector<std::uint32_t> addresses_;  // that rules name
  model::EgressPolicy policy_;
  base::UniqueFd node_;
  std::optional<LoadedFilter> filter_;
};

base::Result<double> measure(std::string_view name, std::uint32_t entries) {
  Machine machine(entries);
  if (name == "nop" || name == "nop-once") {
    return machine.nop(name == "nop" ? kRepeats : 1);
  }
  CR_CHECK(machine.load());
  if (name == "established") {
    return machine.established();
  }
  if (name == "hit") {
    return machine.hit();
  }
  return machine.miss();
}

}  // namespace

int main(int argc, char** argv) {
  constexpr std::array<std::string_view, 5> kCases{"established", "hit", "miss", "nop", "nop-once"};
  const std::string_view name = argc == 3 ? argv[1] : "";
  const std::string_view number = argc == 3 ? argv[2] : "";
  std::uint32_t entries = 0;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), entries);
  if (std::find(kCases.begin(), kCases.end(), name) == kCases.end() || error != std::errc() ||
      end != number.data() + number.size() || entries == 0 ||
      entries > kPortsPerRule * model::EgressPolicy::kMaxRules) {
    std::fputs("usage: bench-filter established|hit|miss|nop|nop-once ENTRIES\n", stderr);
    return 64;
  }
  bench::Sample sample;
  if (const auto ns = measure(name, entries); ns.ok()) {
    sample.end_ns = static_cast<std::int64_t>(*ns * kMillion);
  } else {
    sample.failure = ns.error().message();
  }
  std::printf("%s\n", base::json::write(bench::to_json(sample)).c_str());
  return 0;
}
