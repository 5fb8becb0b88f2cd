#include "netpolicy/resolver/wire.hpp"

#include <doctest/doctest.h>

#include "netpolicy/resolver/channel.hpp"
#include "netpolicy/resolver/orders.hpp"
#include "tests/support/dns_messages.hpp"

using namespace cellrund;
using namespace cellrund::netpolicy::resolver;
using test::a_record;
using test::answer_with;
using test::cname_record;
using test::query_for;

namespace {

constexpr std::uint32_t kOne = 0xc6336407;  // 198.51.100.7

Answer parsed(const base::Bytes& message, std::uint16_t id = 7) {
  const auto answer = parse_answer(message, id, "api.example.com");
  REQUIRE(answer.has_value());
  return *answer;
}

}  // namespace

TEST_CASE("a query is read: its name in lower case, what follows the question ignored") {
  base::Bytes message = query_for("API.Example.com", kTypeA, 4711);
  message[11] = 1;  // an additional record, as EDNS has
  message.insert(message.end(), {0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 0});
  const auto query = parse_query(message);
  REQUIRE(query.has_value());
  CHECK(query->id == 4711);
  CHECK(query->name == "api.example.com");
  CHECK(query->type == kTypeA);
  CHECK(query->recursion_desired);
  const base::Bytes reply = build_reply(*query, {Rcode::kRefused, {}, 0}, kMaxDatagram);
  CHECK(reply.size() == 12 + query->question.size());  // no EDNS comes back
  CHECK((reply[3] & 0xf) == 5);
  CHECK(std::equal(query->question.begin(), query->question.end(), reply.begin() + 12));
}

TEST_CASE("what is no plain query is not answered") {
  const base::Bytes good = query_for("api.example.com");
  for (std::size_t size = 0; size < good.size(); ++size) {
    CHECK_FALSE(parse_query(base::BytesView(good).first(size)).has_value());
  }
  const auto with = [&](std::size_t at, std::uint8_t value) {
    base::Bytes out = good;
    out[at] = value;
    return parse_query(out).has_value();
  };
  CHECK(with(2, 0x01));
  CHECK_FALSE(with(2, 0x81));   // a response
  CHECK_FALSE(with(2, 0x29));   // another opcode
  CHECK_FALSE(with(5, 0));      // no question
  CHECK_FALSE(with(5, 2));      // two
  CHECK_FALSE(with(7, 1));      // an answer in it
  CHECK_FALSE(with(12, 0xc0));  // a compressed name
  CHECK_FALSE(with(12, 0x40));
  base::Bytes endless = good;
  endless.resize(kMaxDatagram + 1);
  CHECK_FALSE(parse_query(endless).has_value());
}

TEST_CASE("bytes that no host name has cannot pass for one") {
  base::Bytes message = query_for("api.example.com");
  message[14] = '.';  // a dot inside of the first label
  CHECK(parse_query(message)->name == "a?i.example.com");
  CHECK_FALSE(model::HostName{"example.com", true}.matches("a?i.example.com"));
}

TEST_CASE("addresses are taken from the end of the chain, with the least TTL on the way") {
  const Answer plain = parsed(
      answer_with("api.example.com", {a_record("api.example.com", kOne, 300), a_record("other.example.com", 1, 1)}));
  CHECK(plain.rcode == Rcode::kNoError);
  CHECK(plain.addresses == std::vector<std::uint32_t>{kOne});
  CHECK(plain.ttl == 300);
  // The order of records does not matter, nor case, nor compression.
  const Answer chain = parsed(answer_with(
      "api.example.com", {a_record("pop.cdn.net", kOne, 90), cname_record("EDGE.cdn.net", "pop.cdn.net", 40),
                          cname_record("api.example.com", "edge.CDN.net", 60)}));
  CHECK(chain.addresses == std::vector<std::uint32_t>{kOne});
  CHECK(chain.ttl == 40);
  base::Bytes compressed = answer_with("api.example.com", {{0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 198, 51, 100, 7}});
  CHECK(parsed(compressed).addresses == std::vector<std::uint32_t>{kOne});
}

TEST_CASE("chains and records are bounded, and what is malformed is a server failure") {
  std::vector<base::Bytes> records;
  for (int i = 0; i < 9; ++i) {
    records.push_back(
        cname_record(i == 0 ? "api.example.com" : "n" + std::to_string(i), "n" + std::to_string(i + 1), 60));
  }
  records.push_back(a_record("n9", kOne, 60));
  CHECK(parsed(answer_with("api.example.com", records)).rcode == Rcode::kServerFailure);
  CHECK(parsed(answer_with("api.example.com", {cname_record("api.example.com", "api.example.com", 60)})).rcode ==
        Rcode::kServerFailure);
  CHECK(parsed(answer_with("api.example.com", {cname_record("api.example.com", "gone.example.com", 60)}))
            .addresses.empty());
  // A pointer to itself, and one forward.
  for (const std::uint8_t to : {std::uint8_t{33}, std::uint8_t{60}}) {
    CHECK(parsed(answer_with("api.example.com", {{0xc0, to, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 1, 2, 3, 4}})).rcode ==
          Rcode::kServerFailure);
  }
  const base::Bytes whole = answer_with("api.example.com", {a_record("api.example.com", kOne, 300)});
  for (std::size_t size = whole.size() - 1; size > 33; --size) {
    CHECK(parse_answer(base::BytesView(whole).first(size), 7, "api.example.com")->rcode == Rcode::kServerFailure);
  }
  std::vector<base::Bytes> many;
  for (std::uint32_t i = 0; i < 100; ++i) {
    many.push_back(a_record("api.example.com", 0xc6330000 + i / 2, 60));
  }
  CHECK(parsed(answer_with("api.example.com", many)).addresses.size() == 50);  // each once
  CHECK(parsed(answer_with("api.example.com", {a_record("api.example.com", kOne, 0x80000001)})).ttl == 0);
}

TEST_CASE("an answer to anything else is none") {
  const base::Bytes good = answer_with("api.example.com", {a_record("api.example.com", kOne, 300)});
  CHECK_FALSE(parse_answer(good, 8, "api.example.com").has_value());
  CHECK_FALSE(parse_answer(good, 7, "other.example.com").has_value());
  CHECK_FALSE(parse_answer(query_for("api.example.com", kTypeA, 7), 7, "api.example.com").has_value());
  base::Bytes other_type = good;
  other_type[12 + 17 + 1] = 28;
  CHECK_FALSE(parse_answer(other_type, 7, "api.example.com").has_value());
  base::Bytes truncated = good;
  truncated[2] |= 2;
  CHECK(parsed(truncated).truncated);
  CHECK(parsed(truncated).addresses.empty());
  base::Bytes missing = good;
  missing[3] = 3;
  CHECK(parsed(missing).rcode == Rcode::kNameError);
  missing[3] = 5;
  CHECK(parsed(missing).rcode == Rcode::kServerFailure);
}

TEST_CASE("a reply that does not fit says so and holds nothing") {
  const auto query = *parse_query(query_for("api.example.com"));
  const std::vector<std::uint32_t> addresses(40, kOne);
  const base::Bytes cut = build_reply(query, {Rcode::kNoError, addresses, 60}, kMaxDatagram);
  CHECK((cut[2] & 2) == 2);
  CHECK(cut.size() <= kMaxDatagram);
  CHECK(cut[7] == 0);
  const base::Bytes whole = build_reply(query, {Rcode::kNoError, addresses, 60}, 65535);
  CHECK((whole[2] & 2) == 0);
  CHECK(whole[7] == 40);
  CHECK(parse_answer(whole, query.id, "api.example.com")->addresses == std::vector<std::uint32_t>{kOne});
}

TEST_CASE("what resolver and daemon say to each other survives the way, and nothing else is understood") {
  const std::vector<FromResolver> messages{Ready{}, Failed{"no"}, Report{Verdict::kDenied, 16, "a.example.com"},
                                           Report{}, Proposal{9, 60, "a.example.com", {kOne, 2}}};
  for (const FromResolver& message : messages) {
    const base::Bytes bytes = encode(message);
    const auto back = decode_from_resolver(bytes);
    REQUIRE(back.has_value());
    CHECK(back->index() == message.index());
    CHECK(encode(*back) == bytes);
    for (std::size_t size = 0; size < bytes.size(); ++size) {
      CHECK_FALSE(decode_from_resolver(base::BytesView(bytes).first(size)).has_value());
    }
    base::Bytes longer = bytes;
    longer.push_back(0);
    CHECK_FALSE(decode_from_resolver(longer).has_value());
  }
  CHECK_FALSE(
      decode_from_resolver(encode(Report{Verdict::kType, 1, "a\x1b[31m"})).has_value());  // no control bytes into logs
  CHECK_FALSE(decode_from_resolver(base::Bytes{3, 99, 0, 1, 0}).has_value());             // no such verdict
  CHECK_FALSE(decode_from_resolver(encode(Proposal{1, 1, "a.example.com", {}})).has_value());
  const auto decision = decode_decision(encode(Decision{9, 1ULL << 63U}));
  REQUIRE(decision.has_value());
  CHECK(decision->lookup == 9);
  CHECK(decision->accepted == 1ULL << 63U);
  CHECK_FALSE(decode_decision(encode(FromResolver{Ready{}})).has_value());
}

TEST_CASE("orders survive the way, and malformed ones are refused") {
  const Orders orders{{{"api.example.com", false}, {"wild.example", true}}, {0xc6336435}, 20};
  const auto back = parse_orders(write_orders(orders));
  REQUIRE(back.ok());
  CHECK(back->names == orders.names);
  CHECK(back->upstreams == orders.upstreams);
  CHECK(back->max_queries == 20);
  for (const char* bad : {"", "{}", R"({"names":[],"upstreams":["192.0.2.1"]})",
                          R"({"names":["a.b"],"upstreams":["x"]})", R"({"names":[1],"upstreams":["192.0.2.1"]})",
                          R"({"names":["a.b"],"upstreams":["192.0.2.1"],"maxQueries":-1})"}) {
    CAPTURE(bad);
    CHECK_FALSE(parse_orders(bad).ok());
  }
}
