// The filter as the kernel runs it (BPF_PROG_TEST_RUN), against the reference classifier. Needs CAP_BPF and
// CAP_NET_ADMIN.
#define DOCTEST_CONFIG_IMPLEMENT
#include <bpf/bpf.h>
#include <doctest/doctest.h>
#include <linux/pkt_cls.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <map>
#include <random>

#include "netpolicy/account.hpp"
#include "netpolicy/classifier.hpp"
#include "netpolicy/filter.hpp"
#include "tests/support/egress_packets.hpp"

using namespace cellrund;
using namespace cellrund::netpolicy;

namespace {

constexpr std::size_t kShortestInput = 14;  // the kernel refuses less in a test run

// Newer kernels also refuse a test run whose IP header is cut short; the live test sends such frames.
bool can_run(const base::Bytes& frame) {
  const unsigned ethertype = frame[12] * 256U + frame[13];
  return frame.size() > kShortestInput && (ethertype != 0x0800 || frame.size() >= 34) &&
         (ethertype != 0x86dd || frame.size() >= 54);
}

const FilterProgram& program() {
  static const auto prepared = FilterProgram::prepare();
  REQUIRE_MESSAGE(prepared.ok(), (prepared.ok() ? "" : prepared.error().message()));
  return *prepared;
}

LoadedFilter load() {
  auto filter = program().load({{"ffffbbbb"}, "0199c1f2-7b1e-7c3a-9d2e-2f4b6a8c0e11", 0}, test::packet_config());
  REQUIRE_MESSAGE(filter.ok(), (filter.ok() ? "" : filter.error().message()));
  return std::move(*filter);
}

LoadedFilter armed() {
  LoadedFilter filter = load();
  REQUIRE(filter.arm().ok());
  return filter;
}

// What the program answers; -1 when it could not be run.
int run(const LoadedFilter::Program& prog, const base::Bytes& frame) {
  LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = frame.data(),
              .data_size_in = static_cast<std::uint32_t>(frame.size()));
  return ::bpf_prog_test_run_opts(prog.fd.get(), &options) == 0 ? static_cast<int>(options.retval) : -1;
}

Account account_of(const LoadedFilter& filter) {
  auto account = read_account(filter.counters().fd.get(), filter.decisions().fd.get());
  REQUIRE(account.ok());
  return std::move(*account);
}

using Key = std::array<std::uint8_t, sizeof(cr_decision_key)>;
Key key_of(const cr_decision_key& key) {
  Key out{};
  std::memcpy(out.data(), &key, sizeof key);
  return out;
}

// A frame that is likely to get far: a row of the table, or a good packet, with a few bytes changed.
base::Bytes random_frame(std::mt19937_64& random, const std::vector<test::PacketRow>& table) {
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random() % n); };
  base::Bytes frame;
  switch (below(4)) {
    case 0:
      frame = table[below(table.size())].frame;
      break;
    case 1: {
      const std::uint32_t nets[] = {0xe0000000, 0xf0000000, 0x7f000000, 0xa9fe0000, 0x64400000, 0x00000000, 0xffffffff};
      frame = test::packet(nets[below(7)] ^ static_cast<std::uint32_t>(random() & 0x00ffffffU), 80, test::kUdp);
      break;
    }
    case 2:
      frame = test::packet(static_cast<std::uint32_t>(random()), static_cast<std::uint16_t>(random()),
                           (random() & 1U) != 0 ? test::kTcp : test::kUdp);
      break;
    default:
      frame.resize(kShortestInput + below(90));
      for (auto& byte : frame) {
        byte = static_cast<std::uint8_t>(random());
      }
      if (below(2) == 0 && frame.size() > 34) {  // random behind good addresses
        frame = test::with(frame, 0, {0x02, 0x43, 0x52, 0, 0, 1, 0x02, 0x43, 0x52, 0, 0, 2, 0x08, 0x00, 0x45});
      }
  }
  for (std::size_t changes = below(4); changes > 0; --changes) {
    frame[below(std::min<std::size_t>(frame.size(), 44))] = static_cast<std::uint8_t>(random());
  }
  if (below(8) == 0) {
    frame.resize(kShortestInput + below(60));
  }
  return frame;
}

}  // namespace

TEST_CASE("the kernel denies each packet of the table for its reason") {
  for (const auto& row : test::packet_table()) {
    if (!can_run(row.frame)) {
      continue;
    }
    CAPTURE(row.description);
    const LoadedFilter filter = armed();
    CHECK(run(filter.out(), row.frame) == TC_ACT_SHOT);
    const Account account = account_of(filter);
    CHECK(account.counted() == 1);
    CHECK(account.packets[row.reason] == 1);
    REQUIRE(account.decisions.size() == 1);
    const auto expected = classify_out(row.frame, test::packet_config(), CR_STATE_ENFORCE);
    CHECK(key_of(account.decisions[0].first) == key_of(expected.key));
    CHECK(account.decisions[0].second.count == 1);
    CHECK(account.decisions[0].second.first_ns > 0);
  }
}

TEST_CASE("kernel and reference agree on 200,000 random frames") {
  constexpr std::size_t kBatches = 250;
  constexpr std::size_t kBatch = 800;  // below CR_MAX_DECISIONS: every key is recorded
  const auto table = test::packet_table();
  std::mt19937_64 random(20261121);
  std::array<std::uint64_t, CR_REASONS> met{};
  for (std::size_t batch = 0; batch < kBatches; ++batch) {
    const LoadedFilter filter = armed();
    std::map<Key, std::uint64_t> expected;
    for (std::size_t i = 0; i < kBatch; ++i) {
      base::Bytes frame = random_frame(random, table);
      while (!can_run(frame)) {
        frame = random_frame(random, table);
      }
      const auto reference = classify_out(frame, test::packet_config(), CR_STATE_ENFORCE);
      ++expected[key_of(reference.key)];
      ++met[reference.reason];
      REQUIRE(run(filter.out(), frame) == TC_ACT_SHOT);
    }
    const Account account = account_of(filter);
    std::map<Key, std::uint64_t> found;
    for (const auto& [key, decision] : account.decisions) {
      found[key_of(key)] = decision.count;
    }
    REQUIRE(account.counted() == kBatch);
    REQUIRE(account.suppressed == 0);
    REQUIRE(found == expected);
  }
  for (unsigned reason = CR_VLAN; reason < CR_INBOUND; ++reason) {
    CAPTURE(reason_name(reason));
    CHECK(met[reason] > 0);
  }
}

TEST_CASE("a filter that was not armed drops everything") {
  const LoadedFilter filter = load();
  CHECK(run(filter.out(), test::packet()) == TC_ACT_SHOT);
  CHECK(run(filter.in(), test::packet()) == TC_ACT_SHOT);
  CHECK(account_of(filter).packets[CR_NOT_ENFORCING] == 2);
}

TEST_CASE("a killed filter drops everything, in both directions") {
  const LoadedFilter filter = armed();
  REQUIRE(write_state(filter.control().fd.get(), CR_STATE_KILLED).ok());
  CHECK(run(filter.out(), test::packet()) == TC_ACT_SHOT);
  CHECK(run(filter.in(), test::packet()) == TC_ACT_SHOT);
  CHECK(account_of(filter).packets[CR_KILLED] == 2);
}

TEST_CASE("what is sent to the cell is dropped and says from where") {
  const LoadedFilter filter = armed();
  std::map<Key, std::uint64_t> expected;
  for (const auto& row : test::packet_table()) {
    if (can_run(row.frame)) {
      CAPTURE(row.description);
      CHECK(run(filter.in(), row.frame) == TC_ACT_SHOT);
      ++expected[key_of(classify_in(row.frame, CR_STATE_ENFORCE).key)];
    }
  }
  const Account account = account_of(filter);
  CHECK(account.packets[CR_INBOUND] == account.counted());
  std::map<Key, std::uint64_t> found;
  for (const auto& [key, decision] : account.decisions) {
    found[key_of(key)] = decision.count;
  }
  CHECK(found == expected);
}

TEST_CASE("more different attempts than fit are suppressed, and nothing is lost") {
  const LoadedFilter filter = armed();
  constexpr std::uint32_t kAttempts = CR_MAX_DECISIONS + 500;
  for (std::uint32_t i = 0; i < kAttempts; ++i) {
    REQUIRE(run(filter.out(), test::packet(0x08000000 + i, 443)) == TC_ACT_SHOT);
  }
  const Account account = account_of(filter);
  CHECK(account.decisions.size() == CR_MAX_DECISIONS);
  CHECK(account.suppressed == kAttempts - CR_MAX_DECISIONS);
  model::EgressFacts facts;
  fill_account(account, facts);
  CHECK(facts.counted == kAttempts);
  CHECK(facts.seen + facts.suppressed + facts.lost == facts.counted);
}

TEST_CASE("the constants of a cell cannot be changed, not even by root") {
  const LoadedFilter filter = armed();
  const cr_config other{};
  const std::uint32_t zero = 0;
  CHECK(::bpf_map_update_elem(filter.config().fd.get(), &zero, &other, BPF_ANY) != 0);
}

TEST_CASE("every cell's program has the same tag") {
  const LoadedFilter one = load();
  const auto two = program().load({{"ffffbbbb"}, "0199c1f2-7b1e-7c3a-9d2e-2f4b6a8c0e12", 7},
                                  {{2, 0, 0, 0, 0, 1}, {2, 0, 0, 0, 0, 2}, {10, 0, 0, 1}, 1});
  REQUIRE(two.ok());
  CHECK(one.out().tag == two->out().tag);
  CHECK(one.out().tag.size() == 16);
  CHECK(one.out().id != two->out().id);
  CHECK(one.out().tag != one.in().tag);
}

int main(int argc, char** argv) {
  if (::geteuid() != 0) {
    std::puts("skipped: needs root (CAP_BPF, CAP_NET_ADMIN)");
    return 77;
  }
  doctest::Context context(argc, argv);
  return context.run();
}
