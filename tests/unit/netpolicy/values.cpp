#include <doctest/doctest.h>

#include "netpolicy/account.hpp"
#include "netpolicy/address.hpp"
#include "netpolicy/frame.hpp"
#include "netpolicy/names.hpp"

using namespace cellrund;
using namespace cellrund::netpolicy;

TEST_CASE("a slot has one pair of addresses, and no two slots share one") {
  const auto first = network_of_slot(0);
  REQUIRE(first.ok());
  CHECK(format_ipv4(first->gateway) == "100.64.0.0");
  CHECK(format_ipv4(first->cell) == "100.64.0.1");
  const auto last = network_of_slot(kMaxSlots - 1);
  REQUIRE(last.ok());
  CHECK(format_ipv4(last->cell) == "100.126.255.255");
  CHECK(last->cell + 1 == kUplinkAddresses);
  CHECK_FALSE(network_of_slot(kMaxSlots).ok());
}

TEST_CASE("kernel object names of the longest cell name fit") {
  const model::CellName name{{"0123abcd"}, "0199c1f2-7b1e-7c3a-9d2e-2f4b6a8c0e11", 36 * 36 * 36 - 1};
  CHECK(program_out_name(name).size() <= 15);  // BPF_OBJ_NAME_LEN - 1
  CHECK(map_name(name, kCellMaps.size() - 1).size() <= 15);
  CHECK(name.host_link().size() <= 15);  // IFNAMSIZ - 1
}

TEST_CASE("a built frame has the checksums of RFC 791 and RFC 768") {
  const base::Bytes frame = build_frame({kCellMac, kGatewayMac, 0x64400001, 0xc0000201, 17, 40000, 9});
  const auto sum = [](base::BytesView bytes, std::uint32_t start) {
    std::uint32_t total = start;
    for (std::size_t i = 0; i + 1 < bytes.size(); i += 2) {
      total += static_cast<std::uint32_t>(bytes[i]) << 8U | bytes[i + 1];
    }
    while (total >> 16U != 0) {
      total = (total & 0xffffU) + (total >> 16U);
    }
    return total;
  };
  REQUIRE(frame.size() == 42);
  CHECK(sum(base::BytesView(frame).subspan(14, 20), 0) == 0xffff);
  const std::uint32_t pseudo = sum(base::BytesView(frame).subspan(26, 8), 17 + 8);
  CHECK(sum(base::BytesView(frame).subspan(34), pseudo) == 0xffff);
}

TEST_CASE("an account adds up and lists decisions in the order of their appearance") {
  Account account;
  account.packets[CR_DEFAULT_DENY] = 7;
  account.packets[CR_IPV6] = 2;
  account.suppressed[CR_DEFAULT_DENY] = 2;
  account.lost[CR_DEFAULT_DENY] = 1;
  account.decisions = {
      {{{198, 51, 100, 7}, 443, 6, CR_DEFAULT_DENY}, {4, 200, 900}},
      {{{0, 0, 0, 0}, 0, 0, CR_IPV6}, {2, 100, 110}},
      {{{192, 0, 2, 7}, 443, 6, CR_ALLOWED}, {5, 300, 310}},
  };
  account.packets[CR_ALLOWED] = 5;
  account.packets[CR_ESTABLISHED] = 70;
  account.packets[CR_REPLY] = 60;
  model::EgressFacts facts;
  fill_account(account, facts);
  CHECK(facts.counted == 14);
  CHECK(facts.seen == 11);
  CHECK(facts.lost == 1);
  CHECK(facts.imbalance.empty());
  CHECK(facts.seen + facts.suppressed + facts.lost == facts.counted);
  REQUIRE(facts.counters.size() == 5);
  CHECK(facts.counters[0] == std::pair<std::string, std::uint64_t>{"ipv6", 2});
  REQUIRE(facts.decisions.size() == 3);
  CHECK(facts.decisions[0].reason == "ipv6");
  CHECK(facts.decisions[0].seq == 1);
  CHECK(facts.decisions[0].destination.empty());
  CHECK(facts.decisions[1].destination == "198.51.100.7");
  CHECK(facts.decisions[1].port == 443);
  CHECK(facts.decisions[1].verdict == "denied");
  CHECK(facts.decisions[1].boot_ns == 200);
  CHECK(facts.decisions[2].verdict == "allowed");
}

TEST_CASE("an account that does not add up for one verdict says so, also when another makes up for it") {
  Account account;
  account.packets[CR_DEFAULT_DENY] = 7;
  account.packets[CR_ARP] = 3;
  account.suppressed[CR_DEFAULT_DENY] = 6;
  account.decisions = {{{{0, 0, 0, 0}, 0, 0, CR_ARP}, {4, 1, 2}}};
  model::EgressFacts facts;
  fill_account(account, facts);
  CHECK(facts.seen + facts.suppressed + facts.lost == facts.counted);
  CHECK(facts.imbalance == "arp: 3 packets counted, 4 accounted for");
}
