#include "netpolicy/classifier.hpp"

#include <doctest/doctest.h>

#include <set>

#include "tests/support/egress_packets.hpp"

using namespace cellrund;
using namespace cellrund::netpolicy;

TEST_CASE("each packet of the table is denied for its reason") {
  for (const auto& row : test::packet_table()) {
    CAPTURE(row.description);
    const Classified result = classify_out(row.frame, test::packet_config(), CR_STATE_ENFORCE);
    CHECK(reason_name(result.reason) == reason_name(row.reason));
    CHECK(result.key.reason == row.reason);
  }
}

TEST_CASE("the table has a row for every reason that a frame can have") {
  std::set<unsigned> covered{CR_NOT_ENFORCING, CR_KILLED, CR_INBOUND};  // not a matter of the frame
  for (const auto& row : test::packet_table()) {
    covered.insert(row.reason);
  }
  CHECK(covered.size() == CR_REASONS);
}

TEST_CASE("state comes before everything else") {
  const auto frame = test::packet();
  CHECK(classify_out(frame, test::packet_config(), CR_STATE_UNSET).reason == CR_NOT_ENFORCING);
  CHECK(classify_out(frame, test::packet_config(), CR_STATE_KILLED, true).reason == CR_KILLED);
  CHECK(classify_in(frame, CR_STATE_KILLED).reason == CR_KILLED);
}

TEST_CASE("a tag that the kernel took off counts like one in the frame") {
  CHECK(classify_out(test::packet(), test::packet_config(), CR_STATE_ENFORCE, true).reason == CR_VLAN);
}

TEST_CASE("a decision names the far end as far as the packet was read") {
  const auto udp = classify_out(test::packet(test::kOutside, 9, test::kUdp), test::packet_config(), CR_STATE_ENFORCE);
  CHECK(udp.key.protocol == 17);
  CHECK(udp.key.port == 9);
  CHECK(udp.key.address[0] == 198);
  CHECK(udp.key.address[3] == 7);
  const auto metadata = classify_out(test::packet(0xa9fea9fe, 80), test::packet_config(), CR_STATE_ENFORCE);
  CHECK(metadata.key.address[2] == 169);
  CHECK(metadata.key.port == 0);
  const auto inbound = classify_in(test::packet(), CR_STATE_ENFORCE);
  CHECK(inbound.reason == CR_INBOUND);
  CHECK(inbound.key.address[0] == 100);
}

TEST_CASE("frames shorter than an Ethernet header are truncated, whatever they hold") {
  for (std::size_t size = 0; size < 14; ++size) {
    CHECK(classify_out(test::cut(test::packet(), size), test::packet_config(), CR_STATE_ENFORCE).reason ==
          CR_TRUNCATED);
  }
}

TEST_CASE("reasons have names, and each its own") {
  std::set<std::string_view> names;
  for (unsigned reason = 0; reason < CR_REASONS; ++reason) {
    CHECK_FALSE(reason_name(reason).empty());
    names.insert(reason_name(reason));
  }
  CHECK(names.size() == CR_REASONS);
  CHECK(reason_name(CR_DEFAULT_DENY) == "default-deny");
  CHECK(reason_name(CR_METADATA) == "metadata");
  CHECK(reason_name(CR_REASONS).empty());
}
