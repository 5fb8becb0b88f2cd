#include "netpolicy/explain.hpp"

#include <doctest/doctest.h>

#include "tests/support/egress_packets.hpp"

using namespace cellrund;
using namespace cellrund::netpolicy;

TEST_CASE("targets are read strictly") {
  CHECK(parse_target("198.51.100.7:443")->text() == "198.51.100.7:443/tcp");
  CHECK(parse_target("198.51.100.7:443/tcp")->text() == "198.51.100.7:443/tcp");
  CHECK(parse_target("198.51.100.7:53/udp")->text() == "198.51.100.7:53/udp");
  for (const char* bad : {"", "198.51.100.7", "198.51.100.7:", "198.51.100.7:0", "198.51.100.7:65536", "198.51.100.7:x", "198.51.100.7:443/icmp",
                          "[::1]:443", "198.51.100.7:443/", "198.51.100:443", " 198.51.100.7:443"}) {
    CAPTURE(bad);
    CHECK_FALSE(parse_target(bad).ok());
  }
  CHECK(parse_target("API.example.com:443")->text() == "api.example.com:443/tcp");
  for (const char* bad : {"example:443", ".example.com:443", "example..com:443", "exam ple.com:443", "198.51.100.7.9:443"}) {
    CAPTURE(bad);
    CHECK_FALSE(parse_target(bad).ok());
  }
}

TEST_CASE("an explanation says what the filter does to the first packet") {
  const CompiledPolicy policy = test::packet_policy();
  Conditions now = test::armed_conditions();
  std::size_t explained = 0;
  for (const auto& table : {test::packet_table(), test::policy_table()}) {
    for (const auto& row : table) {
      if (row.frame.size() < 42 || row.reason < CR_BROADCAST || (row.reason > CR_EXPIRED && row.reason != CR_ALLOWED)) {
        continue;  // refused before any rule is asked, or for what no target has
      }
      const auto decided = Classifier(test::packet_config(), policy).out(row.frame, now).key;
      const Target target{static_cast<std::uint32_t>(decided.address[0]) << 24U | static_cast<std::uint32_t>(decided.address[1]) << 16U |
                              static_cast<std::uint32_t>(decided.address[2]) << 8U | decided.address[3],
                          decided.port, static_cast<model::Transport>(decided.protocol),
                          {}};
      CAPTURE(row.description);
      const Explanation answer = explain(policy, target, now.now_ns);
      CHECK(answer.allowed == (row.reason == CR_ALLOWED));
      CHECK((answer.allowed || answer.reason == row.reason));
      ++explained;
    }
  }
  CHECK(explained > 40);
}

TEST_CASE("an explanation names the rule and the entry that decide") {
  const CompiledPolicy policy = test::packet_policy();
  const auto of = [&](const char* target) { return explain(policy, *parse_target(target), 1'000'000'000); };
  CHECK(of("192.0.2.7:443").rule == 0);
  CHECK(of("192.0.2.7:443").match->text() == "192.0.2.0/24");
  CHECK(of("10.2.9.9:22").rule == 3);
  CHECK(of("192.0.2.200:80").reason == CR_EXPIRED);
  CHECK(of("192.0.2.200:80").rule == 2);
  CHECK(of("169.254.169.254:9999").match->text() == "169.254.169.254/32");
  CHECK_FALSE(of("192.0.2.7:444").rule.has_value());
  const CompiledPolicy names = test::compiled({{{model::host_name_of("api.example.com"), {443}, model::Transport::kTcp, {}},
                                                {model::host_name_of("*.wild.example"), {80}, model::Transport::kTcp, base::WallTime{1, 0}}},
                                               {}},
                                              {"public", "wildcard:*.wild.example"});
  const auto of_name = [&](const char* target) { return explain(names, *parse_target(target), 2'000'000'000); };
  CHECK(of_name("api.example.com:443").allowed);
  CHECK(of_name("api.example.com:443").rule == 0);
  CHECK_FALSE(of_name("api.example.com:443/udp").allowed);
  CHECK_FALSE(of_name("x.api.example.com:443").rule.has_value());
  CHECK(of_name("x.wild.example:80").reason == CR_EXPIRED);
  CHECK(of_name("100.64.0.0:53/udp").resolver);
  CHECK(of_name("100.64.0.0:80").reason == CR_ROUTER);
}
