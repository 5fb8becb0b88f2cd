// The filter as the kernel runs it (BPF_PROG_TEST_RUN), against the reference classifier. Needs CAP_BPF and
// CAP_NET_ADMIN. CELLRUN_FRAMES sets how many random frames are compared (default 200,000).
#define DOCTEST_CONFIG_IMPLEMENT
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <thread>

#include "netpolicy/samples.hpp"
#include "tests/bpf/harness.hpp"
#include "tests/bpf/random_traffic.hpp"

using namespace cellrund;
using namespace cellrund::netpolicy;
using test::can_run;
using test::Pair;

namespace {

std::uint64_t frames_wanted() {
  std::uint64_t frames = 200'000;
  if (const char* text = ::secure_getenv("CELLRUN_FRAMES"); text != nullptr) {
    const std::string_view digits = text;
    (void)std::from_chars(digits.data(), digits.data() + digits.size(), frames);
  }
  return frames;
}

// A job's limits as they may be, each rare enough that most batches get far.
model::EgressQuota random_quota(test::RandomTraffic& traffic) {
  model::EgressQuota quota;
  switch (traffic.below(12)) {
    case 0:
      quota.packets = traffic.below(200);
      break;
    case 1:
      quota.bytes = traffic.below(20'000);
      break;
    case 2:
      quota.connections = traffic.below(12);
      break;
    case 3:
      quota.bytes_per_second = 1;  // each packet pays for half a minute at least: no clock decides the verdict
      break;
    case 4:
      quota = {.bytes = 1U << 30U, .packets = 1U << 20U, .connections = 1U << 20U, .dns_queries = {}, .bytes_per_second = 1U << 30U};
      break;
    default:
      break;
  }
  return quota;
}

void change_names(Pair& pair, test::RandomTraffic& traffic) {
  const NamedService service = traffic.service();
  if (traffic.below(4) == 0) {
    pair.erase_named(service);
    return;
  }
  const std::uint64_t rule_ends = traffic.below(4) == 0 ? 2 : CR_NEVER;
  pair.put_named(service, {traffic.below(3) == 0 ? 1 : CR_NEVER, rule_ends, static_cast<std::uint32_t>(traffic.below(3))});
}

void change_conditions(Pair& pair, test::RandomTraffic& traffic) {
  switch (traffic.below(8)) {
    case 0:
      pair.conditions.node.kill_switch ^= 1U;
      break;
    case 1:
      ++pair.conditions.node.epoch;
      break;
    case 2:
      pair.conditions.lease = pair.conditions.lease == CR_NEVER ? 1 : CR_NEVER;
      break;
    case 3:
      pair.conditions.state = static_cast<cr_state>(traffic.below(3));
      break;
    default:
      pair.conditions = {};
      pair.conditions.lease = CR_NEVER;
  }
  pair.apply();
}

}  // namespace

TEST_CASE("the kernel gives each packet of the tables its verdict") {
  for (const auto& table : {test::packet_table(), test::policy_table()}) {
    for (const auto& row : table) {
      if (!can_run(row.frame)) {
        continue;
      }
      CAPTURE(row.description);
      Pair pair(test::packet_policy());
      CHECK(pair.out(row.frame));
      CHECK(pair.last() == row.reason);
      CHECK(pair.difference() == "");
    }
  }
}

TEST_CASE("kernel and reference agree on random traffic, in both directions and under changing conditions") {
  constexpr std::uint64_t kBatch = 800;  // fewer decisions than CR_MAX_DECISIONS, fewer flows than the table evicts at
  const std::uint64_t wanted = frames_wanted();
  test::RandomTraffic traffic(20261121);
  const CompiledPolicy policy = test::packet_policy();
  std::array<std::uint64_t, CR_VERDICTS> met{};
  for (std::uint64_t done = 0; done < wanted; done += kBatch) {
    Pair pair(policy, random_quota(traffic));
    for (std::uint64_t i = 0; i < kBatch; ++i) {
      if (traffic.below(100) == 0) {
        change_conditions(pair, traffic);
      }
      if (traffic.below(40) == 0) {
        change_names(pair, traffic);
      }
      const test::Traffic packet = traffic.next();
      const bool agree = packet.outward ? pair.out(packet.frame) : pair.in(packet.frame);
      if (!agree) {
        CAPTURE(done + i);
        CAPTURE(reason_name(pair.last()));
        REQUIRE_MESSAGE(agree, "the kernel answers otherwise than the reference");
      }
      ++met[pair.last()];
    }
    REQUIRE(pair.difference() == "");
  }
  if (wanted >= 100'000) {
    for (unsigned verdict = 0; verdict < CR_VERDICTS; ++verdict) {
      CAPTURE(reason_name(verdict));
      CHECK((met[verdict] > 0 || verdict == CR_FLOW_TABLE));
    }
  }
}

TEST_CASE("a filter that was not armed drops everything") {
  Pair pair(test::packet_policy());
  pair.conditions.state = CR_STATE_UNSET;
  pair.apply();
  CHECK(pair.out(test::packet(test::kAllowed, 443)));
  CHECK(pair.last() == CR_NOT_ENFORCING);
  CHECK(pair.in(test::reply_to(test::packet(test::kAllowed, 443))));
  CHECK(pair.difference() == "");
}

TEST_CASE("a flow passes both ways until its state, switch, lease or epoch says otherwise") {
  Pair pair(test::packet_policy());
  const auto syn = test::packet(test::kAllowed, 443);
  const auto ack = test::with(syn, test::kTcpFlags, {0x10});
  const auto expect = [&](unsigned out, unsigned in) {
    CHECK(pair.out(ack));
    CHECK(reason_name(pair.last()) == reason_name(out));
    CHECK(pair.in(test::reply_to(syn)));
    CHECK(reason_name(pair.last()) == reason_name(in));
  };
  expect(CR_TCP_STATE, CR_INBOUND);
  CHECK(pair.out(syn));
  expect(CR_ESTABLISHED, CR_REPLY);
  pair.conditions.lease = 1;
  pair.apply();
  expect(CR_LEASE, CR_LEASE);
  pair.conditions.lease = CR_NEVER;
  pair.conditions.node.kill_switch = 1;
  pair.apply();
  expect(CR_KILL_SWITCH, CR_KILL_SWITCH);
  pair.conditions.node = {0, 1};
  pair.apply();
  expect(CR_TCP_STATE, CR_INBOUND);
  CHECK(pair.out(syn));
  expect(CR_ESTABLISHED, CR_REPLY);
  pair.conditions.state = CR_STATE_KILLED;
  pair.apply();
  expect(CR_KILLED, CR_KILLED);
  CHECK(pair.difference() == "");
}

TEST_CASE("a flow ends with its rule") {
  const auto end = base::BootTime::now() + std::chrono::milliseconds(300);
  model::EgressPolicy policy{{test::rule("192.0.2.0/24", {443}, model::Transport::kTcp, base::WallTime{end.ns / 1'000'000'000, static_cast<std::int32_t>(end.ns % 1'000'000'000)})}, {}};
  Pair pair(test::compiled(policy, {"public"}));
  const auto syn = test::packet(test::kAllowed, 443);
  CHECK(pair.out(syn));
  CHECK(pair.in(test::reply_to(syn)));
  while (base::BootTime::now() < end + std::chrono::milliseconds(1)) {
    std::this_thread::yield();
  }
  CHECK(pair.out(test::with(syn, test::kTcpFlags, {0x10})));
  CHECK(pair.last() == CR_EXPIRED);
  CHECK(pair.in(test::reply_to(syn)));
  CHECK(pair.last() == CR_INBOUND);
  CHECK(pair.difference() == "");
}

TEST_CASE("what a name has is open until its answer is over, and a flow goes on until its rule is") {
  Pair pair(test::packet_policy());
  const NamedService service{model::Transport::kTcp, 443, test::kOutside};
  const auto syn = test::packet(test::kOutside, 443);
  const auto from_port = [&](std::uint8_t port) { return test::with(syn, 34, {1, port}); };
  const auto expect = [&](const base::Bytes& frame, unsigned verdict) {
    CHECK(pair.out(frame));
    CHECK(reason_name(pair.last()) == reason_name(verdict));
  };
  expect(syn, CR_DEFAULT_DENY);
  pair.put_named(service, {CR_NEVER, CR_NEVER, 5});
  expect(syn, CR_ALLOWED);
  expect(test::packet(test::kOutside, 444), CR_DEFAULT_DENY);
  expect(test::packet(test::kOutside, 443, test::kUdp), CR_DEFAULT_DENY);
  pair.put_named(service, {1, CR_NEVER, 5});
  expect(from_port(1), CR_EXPIRED);
  expect(test::with(syn, test::kTcpFlags, {0x10}), CR_ESTABLISHED);
  CHECK(pair.in(test::reply_to(syn)));
  CHECK(pair.last() == CR_REPLY);
  const auto soon = static_cast<std::uint64_t>((base::BootTime::now() + std::chrono::milliseconds(300)).ns);
  pair.put_named(service, {CR_NEVER, soon, 5});
  expect(from_port(2), CR_ALLOWED);
  while (static_cast<std::uint64_t>(base::BootTime::now().ns) <= soon) {
    std::this_thread::yield();
  }
  expect(test::with(from_port(2), test::kTcpFlags, {0x10}), CR_TCP_STATE);
  pair.erase_named(service);
  expect(from_port(3), CR_DEFAULT_DENY);
  // What a rule allows for longer, or still, does not ask for names.
  pair.put_named({model::Transport::kTcp, 80, 0xc0000281}, {CR_NEVER, CR_NEVER, 5});
  expect(test::packet(0xc0000281, 80), CR_ALLOWED);  // its own rule has expired
  pair.put_named({model::Transport::kTcp, 443, test::kAllowed}, {1, 1, 5});
  expect(test::packet(test::kAllowed, 443), CR_ALLOWED);
  CHECK(pair.difference() == "");
}

TEST_CASE("what is more than a second ahead of the rate is dropped, and nothing else") {
  Pair pair(test::packet_policy(), {.bytes = {}, .packets = {}, .connections = {}, .dns_queries = {}, .bytes_per_second = 1});
  const auto syn = test::packet(test::kAllowed, 443);
  CHECK(pair.out(syn));
  CHECK(pair.last() == CR_ALLOWED);  // and pays for half a minute at least
  CHECK(pair.out(test::with(syn, test::kTcpFlags, {0x10})));
  CHECK(pair.last() == CR_RATE);
  CHECK(pair.in(test::reply_to(syn)));
  CHECK(pair.last() == CR_RATE);
  CHECK(pair.out(test::packet(test::kOutside, 443)));
  CHECK(pair.last() == CR_DEFAULT_DENY);
  CHECK(pair.difference() == "");
}

TEST_CASE("a flow ends when it was idle for too long, sooner after a FIN or RST") {
  const auto syn = test::packet(test::kAllowed, 443);
  const auto udp = test::packet(0xc0000235, 53, test::kUdp);
  const auto flags = [&](std::uint8_t value) { return test::with(syn, test::kTcpFlags, {value}); };
  struct Row {
    const char* description;
    base::Bytes opening, last, reply;
    std::uint64_t idle_ns;
  };
  for (const auto& [description, opening, last, reply, idle_ns] :
       {Row{"tcp", syn, flags(0x10), test::reply_to(syn), CR_IDLE_TCP_NS}, Row{"tcp after FIN", syn, flags(0x11), test::reply_to(syn), CR_IDLE_CLOSING_NS},
        Row{"tcp after RST", syn, flags(0x04), test::reply_to(syn), CR_IDLE_CLOSING_NS},
        Row{"tcp after a FIN of the far end", syn, flags(0x10), test::reply_to(syn, 0x11), CR_IDLE_CLOSING_NS},
        Row{"udp", udp, udp, test::reply_to(udp), CR_IDLE_UDP_NS}}) {
    CAPTURE(description);
    Pair pair(test::packet_policy());
    REQUIRE(pair.out(opening));
    REQUIRE(pair.out(last));
    REQUIRE(pair.in(reply));
    REQUIRE(pair.last() == CR_REPLY);
    const int flows = pair.filter().map(MapRole::kFlows).fd.get();
    cr_flow_key key{};
    cr_flow flow{};
    REQUIRE(::bpf_map_get_next_key(flows, nullptr, &key) == 0);
    REQUIRE(::bpf_map_lookup_elem(flows, &key, &flow) == 0);
    CHECK(flow.idle_ns == idle_ns);
    // As if the last packet had passed just inside the time, and just outside of it.
    constexpr std::uint64_t kSlack = 5'000'000'000;
    const auto aged = [&](std::uint64_t age) {
      flow.last_ns = static_cast<std::uint64_t>(base::BootTime::now().ns) - age;
      REQUIRE(::bpf_map_update_elem(flows, &key, &flow, BPF_ANY) == 0);
      return pair.kernel_alone(false, reply);
    };
    CHECK(aged(idle_ns - kSlack) == TC_ACT_OK);
    REQUIRE(::bpf_map_lookup_elem(flows, &key, &flow) == 0);
    CHECK(static_cast<std::uint64_t>(base::BootTime::now().ns) - flow.last_ns < kSlack);  // that packet counts
    CHECK(aged(idle_ns) == TC_ACT_SHOT);
  }
}

TEST_CASE("beyond the table decisions are sampled at a bounded rate, and each packet is accounted for") {
  Pair pair(test::packet_policy());
  const int counters = pair.filter().counters();
  const int decisions = pair.filter().decisions();
  const int ring = pair.filter().map(MapRole::kSamples).fd.get();
  constexpr std::uint32_t kAttempts = CR_MAX_DECISIONS + 2000;
  const auto started = base::BootTime::now();
  std::uint32_t address = 0x08000000;
  for (; address < 0x08000000 + kAttempts; ++address) {
    REQUIRE(pair.out(test::packet(address, 443)));
  }
  const auto took_ns = static_cast<std::uint64_t>(base::BootTime::now().ns - started.ns);
  Samples samples;
  REQUIRE(samples.drain(ring).ok());
  auto account = read_account(counters, decisions);
  REQUIRE(account.ok());
  CHECK(account->decisions.size() == CR_MAX_DECISIONS);
  CHECK(account->imbalance() == "default-deny: " + std::to_string(kAttempts) + " packets counted, " +
                                    std::to_string(CR_MAX_DECISIONS + account->suppressed[CR_DEFAULT_DENY]) + " accounted for");
  const std::uint64_t sampled = kAttempts - CR_MAX_DECISIONS - account->suppressed[CR_DEFAULT_DENY];
  CHECK(sampled >= CR_SAMPLE_BURST_NS / CR_SAMPLE_INTERVAL_NS);
  CHECK(sampled <= (CR_SAMPLE_BURST_NS + took_ns) / CR_SAMPLE_INTERVAL_NS + 1);
  samples.add_to(*account);
  CHECK(account->decisions.size() == CR_MAX_DECISIONS + std::min<std::uint64_t>(sampled, Samples::kMost));
  CHECK(account->imbalance() == "");
  model::EgressFacts facts;
  fill_account(*account, facts);
  CHECK(facts.counted == kAttempts);
  CHECK(facts.lost == 0);
  CHECK(facts.seen + facts.suppressed == facts.counted);

  // Without the rate, and with nobody who reads: the ring fills up. What the bounded table then cannot keep is suppressed.
  constexpr std::uint32_t kFlood = CR_SAMPLE_RING_BYTES / sizeof(cr_sample);
  for (std::uint32_t i = 0; i < kFlood; ++i, ++address) {
    test::put(pair.filter().map(MapRole::kUsage).fd.get(), cr_usage{});
    REQUIRE(pair.kernel_alone(true, test::packet(address, 443)) == TC_ACT_SHOT);
  }
  REQUIRE(samples.drain(ring).ok());
  account = read_account(counters, decisions);
  REQUIRE(account.ok());
  CHECK(account->lost[CR_DEFAULT_DENY] > 0);
  samples.add_to(*account);
  CHECK(account->decisions.size() == CR_MAX_DECISIONS + Samples::kMost);
  CHECK(account->imbalance() == "");
  fill_account(*account, facts);
  CHECK(facts.counted == kAttempts + kFlood);
  CHECK(facts.seen + facts.suppressed + facts.lost == facts.counted);
}

TEST_CASE("a flood of flows pushes out the cell's own, and stays within the table") {
  Pair pair(test::packet_policy());
  for (std::uint32_t i = 0; i < 3U * CR_MAX_FLOWS; ++i) {
    auto syn = test::packet(test::kAllowed, 443);
    syn = test::with(syn, 34, {static_cast<std::uint8_t>(i >> 8U), static_cast<std::uint8_t>(i)});
    REQUIRE(pair.out(syn));
    REQUIRE(pair.last() == CR_ALLOWED);
  }
}

TEST_CASE("constants and rules of a cell cannot be changed, not even by root") {
  const Pair pair(test::packet_policy());
  const std::uint32_t zero = 0;
  const cr_config constants{};
  CHECK(::bpf_map_update_elem(pair.filter().map(MapRole::kConfig).fd.get(), &zero, &constants, BPF_ANY) != 0);
  const cr_allow_key service{CR_ALLOW_EXACT_BITS, 6, 0, {0, 80}, {}};
  const cr_allow rule{CR_NEVER, 0, 0};
  CHECK(::bpf_map_update_elem(pair.filter().map(MapRole::kAllow).fd.get(), &service, &rule, BPF_ANY) != 0);
  const cr_deny_key everywhere{};
  CHECK(::bpf_map_delete_elem(pair.filter().map(MapRole::kDeny).fd.get(), &everywhere) != 0);
}

TEST_CASE("every cell's program has the same tag") {
  const Pair one(test::packet_policy());
  const Pair two(test::deny_all(), {.bytes = 7});
  CHECK(one.filter().out().tag == two.filter().out().tag);
  CHECK(one.filter().out().tag.size() == 16);
  CHECK(one.filter().out().id != two.filter().out().id);
  CHECK(one.filter().out().tag != one.filter().in().tag);
}

int main(int argc, char** argv) {
  if (::geteuid() != 0) {
    std::puts("skipped: needs root (CAP_BPF, CAP_NET_ADMIN)");
    return 77;
  }
  doctest::Context context(argc, argv);
  return context.run();
}
