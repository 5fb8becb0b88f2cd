#include "netpolicy/classifier.hpp"

#include <doctest/doctest.h>

#include <set>

#include "tests/support/egress_packets.hpp"

using namespace cellrund;
using namespace cellrund::netpolicy;
using test::armed_conditions;

namespace {

constexpr std::uint64_t kSecond = 1'000'000'000;

unsigned fresh_out(const base::Bytes& frame, const CompiledPolicy& policy, const Conditions& conditions, bool vlan = false) {
  return Classifier(test::packet_config(), policy).out(frame, conditions, vlan).verdict;
}

// One cell's filter under packet_policy(), driven by hand.
struct Cell {
  explicit Cell(const model::EgressQuota& quota = {}) : filter(test::packet_config(quota), policy) {}
  Cell(const Cell&) = delete;
  Cell& operator=(const Cell&) = delete;
  Cell(Cell&&) = delete;
  Cell& operator=(Cell&&) = delete;
  ~Cell() = default;
  unsigned send(const base::Bytes& frame) { return filter.out(frame, now).verdict; }
  unsigned receive(const base::Bytes& frame) { return filter.in(frame, now).verdict; }

  CompiledPolicy policy = test::packet_policy();
  Classifier filter;
  Conditions now = armed_conditions();
};

const base::Bytes kSyn = test::packet(test::kAllowed, 443);
base::Bytes flags(std::uint8_t value) { return test::with(kSyn, test::kTcpFlags, {value}); }

}  // namespace

TEST_CASE("each packet of the tables has its verdict") {
  const CompiledPolicy rules = test::packet_policy();
  const CompiledPolicy none = test::deny_all();
  for (const auto& row : test::packet_table()) {
    CAPTURE(row.description);
    CHECK(reason_name(fresh_out(row.frame, rules, armed_conditions())) == reason_name(row.reason));
    CHECK(reason_name(fresh_out(row.frame, none, armed_conditions())) == reason_name(row.reason));
  }
  for (const auto& row : test::policy_table()) {
    CAPTURE(row.description);
    CHECK(reason_name(fresh_out(row.frame, rules, armed_conditions())) == reason_name(row.reason));
    CHECK(fresh_out(row.frame, none, armed_conditions()) < CR_REASONS);
  }
}

TEST_CASE("the tables have a row for every reason that a first packet of a cell can have") {
  std::set<unsigned> covered{CR_NOT_ENFORCING, CR_KILLED, CR_KILL_SWITCH, CR_LEASE, CR_RATE, CR_QUOTA, CR_FLOW_TABLE};  // not a matter of the frame
  for (unsigned inbound = CR_INBOUND_FRAME; inbound < CR_REASONS; ++inbound) {
    covered.insert(inbound);
  }
  for (const auto& table : {test::packet_table(), test::policy_table()}) {
    for (const auto& row : table) {
      covered.insert(row.reason);
    }
  }
  covered.erase(CR_ALLOWED);
  CHECK(covered.size() == CR_REASONS);
}

TEST_CASE("state and kill switch come before everything else, the lease only before what would pass") {
  Cell cell;
  cell.now.lease = cell.now.now_ns;
  CHECK(cell.send(kSyn) == CR_LEASE);
  CHECK(cell.send(test::packet()) == CR_DEFAULT_DENY);
  cell.now.node.kill_switch = 1;
  CHECK(cell.send(test::packet()) == CR_KILL_SWITCH);
  CHECK(cell.receive(test::reply_to(kSyn)) == CR_KILL_SWITCH);
  cell.now.state = CR_STATE_KILLED;
  CHECK(cell.send(kSyn) == CR_KILLED);
  cell.now.state = CR_STATE_UNSET;
  CHECK(cell.send(kSyn) == CR_NOT_ENFORCING);
  CHECK(cell.filter.usage().packets == 0);
}

TEST_CASE("a tag that the kernel took off counts like one in the frame") {
  Cell cell;
  CHECK(cell.filter.out(kSyn, cell.now, true).verdict == CR_VLAN);
  CHECK(cell.filter.in(test::reply_to(kSyn), cell.now, true).verdict == CR_INBOUND_FRAME);
}

TEST_CASE("a flow passes both ways, by its exact tuple alone") {
  Cell cell;
  CHECK(cell.receive(test::reply_to(kSyn)) == CR_INBOUND);
  CHECK(cell.send(flags(0x10)) == CR_TCP_STATE);
  CHECK(cell.send(kSyn) == CR_ALLOWED);
  CHECK(cell.receive(test::reply_to(kSyn)) == CR_REPLY);
  CHECK(cell.send(flags(0x10)) == CR_ESTABLISHED);
  CHECK(cell.send(kSyn) == CR_ESTABLISHED);  // sent again
  for (const std::size_t at : {29U, 34U, 35U, 36U, 37U}) {  // far address, far port, cell's port
    base::Bytes other = test::reply_to(kSyn);
    other[at] ^= 1U;
    CAPTURE(at);
    CHECK(cell.receive(other) == CR_INBOUND);
  }
  base::Bytes udp = test::reply_to(kSyn);
  udp[23] = test::kUdp;
  CHECK(cell.receive(udp) == CR_INBOUND);
  CHECK(cell.filter.usage().connections == 1);
  CHECK(cell.filter.usage().packets == 4);
}

TEST_CASE("what is sent to the cell is dropped for a reason of its own") {
  Cell cell;
  REQUIRE(cell.send(kSyn) == CR_ALLOWED);
  const base::Bytes reply = test::reply_to(kSyn);
  CHECK(cell.receive(test::with(reply, 12, {0x86, 0xdd})) == CR_INBOUND_FRAME);
  CHECK(cell.receive(test::with(reply, 12, {0x08, 0x06})) == CR_INBOUND_FRAME);
  CHECK(cell.receive(test::with(reply, 0, {0xff})) == CR_INBOUND_FRAME);
  CHECK(cell.receive(test::with(reply, 11, {9})) == CR_INBOUND_FRAME);
  CHECK(cell.receive(test::cut(reply, 10)) == CR_INBOUND_FRAME);
  CHECK(cell.receive(test::cut(reply, 33)) == CR_INBOUND_HEADER);
  CHECK(cell.receive(test::with(reply, 14, {0x46})) == CR_INBOUND_HEADER);
  CHECK(cell.receive(test::with(reply, 16, {0xff, 0xff})) == CR_INBOUND_HEADER);
  CHECK(cell.receive(test::with(reply, 16, {0, 39})) == CR_INBOUND_HEADER);
  CHECK(cell.receive(test::with(reply, 20, {0x20, 0x00})) == CR_INBOUND_HEADER);
  CHECK(cell.receive(test::with(reply, 33, {3})) == CR_INBOUND_HEADER);  // a neighbour's address
  CHECK(cell.receive(test::with(reply, 23, {1})) == CR_INBOUND_ICMP);
  CHECK(cell.receive(test::with(reply, 23, {132})) == CR_INBOUND_PROTOCOL);
  CHECK(cell.receive(reply) == CR_REPLY);
}

TEST_CASE("flows end when they are idle, after their end, and with their epoch") {
  Cell cell;
  REQUIRE(cell.send(kSyn) == CR_ALLOWED);
  cell.now.now_ns += 599 * kSecond;
  CHECK(cell.send(flags(0x10)) == CR_ESTABLISHED);
  cell.now.now_ns += 600 * kSecond;
  CHECK(cell.receive(test::reply_to(kSyn)) == CR_INBOUND);
  CHECK(cell.send(flags(0x10)) == CR_TCP_STATE);

  REQUIRE(cell.send(kSyn) == CR_ALLOWED);
  CHECK(cell.receive(test::reply_to(kSyn, 0x11)) == CR_REPLY);  // FIN from the far end
  CHECK(cell.send(flags(0x10)) == CR_ESTABLISHED);              // its acknowledgement
  CHECK(cell.send(kSyn) == CR_ALLOWED);                         // the same ports again are another connection
  CHECK(cell.send(flags(0x14)) == CR_ESTABLISHED);              // RST
  cell.now.now_ns += 10 * kSecond;
  CHECK(cell.send(flags(0x10)) == CR_TCP_STATE);

  REQUIRE(cell.send(kSyn) == CR_ALLOWED);
  ++cell.now.node.epoch;
  CHECK(cell.receive(test::reply_to(kSyn)) == CR_INBOUND);
  CHECK(cell.send(flags(0x10)) == CR_TCP_STATE);
  CHECK(cell.send(kSyn) == CR_ALLOWED);
}

TEST_CASE("an expired rule cuts its flows") {
  const CompiledPolicy policy = test::compiled({{test::rule("192.0.2.0/24", {443}, model::Transport::kTcp, base::WallTime{100, 0})}, {}}, {"public"});
  Classifier filter(test::packet_config(), policy);
  Conditions now = armed_conditions();
  REQUIRE(filter.out(kSyn, now).verdict == CR_ALLOWED);
  now.now_ns = 100 * kSecond - 1;
  CHECK(filter.out(flags(0x10), now).verdict == CR_ESTABLISHED);
  now.now_ns = 100 * kSecond;
  CHECK(filter.out(flags(0x10), now).verdict == CR_EXPIRED);
  CHECK(filter.out(kSyn, now).verdict == CR_EXPIRED);
  CHECK(filter.in(test::reply_to(kSyn), now).verdict == CR_INBOUND);
}

TEST_CASE("a quota stops the packet that would go beyond it, and everything after") {
  const std::uint64_t size = kSyn.size();
  for (const auto& quota : {model::EgressQuota{.bytes = 2 * size + 1}, model::EgressQuota{.packets = 2}, model::EgressQuota{.connections = 2}}) {
    Cell cell(quota);
    CHECK(cell.send(kSyn) == CR_ALLOWED);
    CHECK(cell.send(test::packet(test::kAllowed, 8443)) == CR_ALLOWED);
    CHECK(cell.send(test::packet(0xc0000208, 443)) == CR_QUOTA);
    CHECK(cell.send(flags(0x10)) == CR_QUOTA);
    CHECK(cell.receive(test::reply_to(kSyn)) == CR_QUOTA);
    CHECK(cell.send(test::packet()) == CR_DEFAULT_DENY);
    CHECK(cell.filter.usage().exhausted == 1);
    CHECK(cell.filter.usage().packets == 2);
    CHECK(cell.filter.usage().bytes == 2 * size);
    CHECK(cell.filter.usage().connections == 2);
  }
  Cell none({.packets = 0});
  CHECK(none.send(kSyn) == CR_QUOTA);
}

TEST_CASE("a rate holds packets back beyond a second's worth, and lets them pass again later") {
  Cell cell({.bytes_per_second = kSyn.size()});
  CHECK(cell.send(kSyn) == CR_ALLOWED);
  CHECK(cell.send(flags(0x10)) == CR_ESTABLISHED);  // one second ahead
  CHECK(cell.send(flags(0x10)) == CR_RATE);
  CHECK(cell.receive(test::reply_to(kSyn)) == CR_RATE);
  cell.now.now_ns += kSecond;
  CHECK(cell.receive(test::reply_to(kSyn)) == CR_REPLY);
  CHECK(cell.send(flags(0x10)) == CR_RATE);
  CHECK(cell.filter.usage().packets == 3);
}

TEST_CASE("a decision names the far end as far as the packet was read") {
  Cell cell;
  const auto udp = cell.filter.out(test::packet(test::kOutside, 9, test::kUdp), cell.now);
  CHECK(udp.key.protocol == 17);
  CHECK(udp.key.port == 9);
  CHECK(udp.key.address[0] == 198);
  CHECK(udp.key.address[3] == 7);
  const auto metadata = cell.filter.out(test::packet(0xa9fea9fe, 80), cell.now);
  CHECK(metadata.key.address[2] == 169);
  CHECK(metadata.key.port == 80);
  const auto inbound = cell.filter.in(test::reply_to(kSyn), cell.now);
  CHECK(inbound.key.address[0] == 192);
  CHECK(inbound.key.port == 443);
}

TEST_CASE("frames shorter than an Ethernet header are truncated, whatever they hold") {
  for (std::size_t size = 0; size < 14; ++size) {
    CHECK(fresh_out(test::cut(test::packet(), size), test::deny_all(), armed_conditions()) == CR_TRUNCATED);
  }
}

TEST_CASE("verdicts have names, and each its own") {
  std::set<std::string_view> names;
  for (unsigned verdict = 0; verdict < CR_VERDICTS; ++verdict) {
    CHECK_FALSE(reason_name(verdict).empty());
    names.insert(reason_name(verdict));
  }
  CHECK(names.size() == CR_VERDICTS);
  CHECK(reason_name(CR_DEFAULT_DENY) == "default-deny");
  CHECK(reason_name(CR_METADATA) == "metadata");
  CHECK(reason_name(CR_INBOUND) == "inbound");
  CHECK(reason_name(CR_REPLY) == "reply");
  CHECK(reason_name(CR_VERDICTS).empty());
}
