#include "netpolicy/resolver/engine.hpp"

#include <doctest/doctest.h>

#include <algorithm>

#include "netpolicy/resolver/dns_record.hpp"
#include "netpolicy/resolver/read_budget.hpp"
#include "tests/support/dns_messages.hpp"

using namespace cellrund;
using namespace cellrund::netpolicy::resolver;
using base::BootTime;
using test::a_record;
using test::answer_with;
using test::query_for;

namespace {

constexpr std::uint32_t kFirst = 0xc6336435, kSecond = 0xc6336436;
constexpr std::uint32_t kHost = 0xc6336407, kInside = 0x0a000001;
constexpr Client kUdp{1, false};

// A resolver driven by hand. Ids are 100, 101, …
struct Driven {
  explicit Driven(std::optional<std::uint64_t> max_queries = {})
      : engine({{{"api.example.com", false}, {"wild.example", true}}, {kFirst, kSecond}, max_queries},
               [this] { return next_id++; }) {}
  Driven(const Driven&) = delete;
  Driven& operator=(const Driven&) = delete;
  Driven(Driven&&) = delete;
  Driven& operator=(Driven&&) = delete;
  ~Driven() = default;

  // The verdicts reported, replies sent and questions asked since the last call.
  void settle() {
    verdicts.clear();
    replies.clear();
    asked.clear();
    proposals.clear();
    for (const Effect& effect : engine.take()) {
      if (const auto* reply = std::get_if<SendReply>(&effect); reply != nullptr) {
        CHECK_FALSE(verdicts.empty());  // each is reported before it is answered
        replies.push_back(reply->message);
      } else if (const auto* ask = std::get_if<AskUpstream>(&effect); ask != nullptr) {
        asked.push_back(*ask);
      } else if (const auto* tell = std::get_if<Tell>(&effect); tell != nullptr) {
        if (const auto* report = std::get_if<Report>(&tell->message); report != nullptr) {
          verdicts.push_back(report->verdict);
        } else {
          proposals.push_back(std::get<Proposal>(tell->message));
        }
      }
    }
  }
  void query(std::string_view name, std::uint16_t type = kTypeA) {
    engine.query(kUdp, query_for(name, type), now);
    settle();
  }
  void answer(const std::vector<base::Bytes>& records, std::uint32_t lookup = 1) {
    engine.answer(lookup, answer_with("api.example.com", records, static_cast<std::uint16_t>(next_id - 1)), now);
    settle();
  }
  [[nodiscard]] unsigned rcode() const { return replies.at(0).at(3) & 0xfU; }
  void pass(std::chrono::milliseconds time) {
    now = now + time;
    engine.tick(now);
    settle();
  }

  std::uint16_t next_id = 100;
  Engine engine;
  BootTime now{1'000'000'000'000};
  std::vector<Verdict> verdicts;
  std::vector<base::Bytes> replies;
  std::vector<AskUpstream> asked;
  std::vector<Proposal> proposals;
};

using Verdicts = std::vector<Verdict>;

}  // namespace

TEST_CASE("a name that is not listed, or another type, is refused and nobody is asked") {
  Driven cell;
  const std::pair<const char*, std::uint16_t> rows[] = {{"example.com", 1},
                                                        {"x.api.example.com", 1},
                                                        {"api.example.co", 1},
                                                        {"wild.example", 1},
                                                        {"x.wild.example.com", 1},
                                                        {"notwild.example", 1},
                                                        {"", 1}};
  for (const auto& [name, type] : rows) {
    CAPTURE(name);
    cell.query(name, type);
    CHECK(cell.verdicts == Verdicts{Verdict::kNotListed});
    CHECK(cell.rcode() == 5);
    CHECK(cell.asked.empty());
  }
  for (const unsigned type : {2U, 5U, 10U, 15U, 16U, 33U, 65U, 255U}) {
    CAPTURE(type);
    cell.query("api.example.com", static_cast<std::uint16_t>(type));
    CHECK(cell.verdicts == Verdicts{Verdict::kType});
    CHECK(cell.rcode() == 5);
    CHECK(cell.asked.empty());
  }
  cell.query("api.example.com", kTypeAaaa);
  CHECK(cell.verdicts == Verdicts{Verdict::kNoData});
  CHECK(cell.rcode() == 0);
  CHECK(cell.asked.empty());
  cell.query(std::string(63, 'a') + "." + std::string(63, 'b') + ".wild.example");  // longer than 128
  CHECK(cell.verdicts == Verdicts{Verdict::kNotListed});
}

TEST_CASE("an answer reaches the cell only after the daemon's decision, with what it accepted") {
  Driven cell;
  cell.query("api.example.com");
  REQUIRE(cell.asked.size() == 1);
  CHECK(cell.asked[0].upstream == kFirst);
  CHECK(cell.replies.empty());
  cell.answer({a_record("api.example.com", kInside, 60), a_record("api.example.com", kHost, 60)});
  CHECK(cell.replies.empty());
  REQUIRE(cell.proposals.size() == 1);
  CHECK(cell.proposals[0].addresses == std::vector<std::uint32_t>{kInside, kHost});
  cell.engine.decided({1, 0b10}, cell.now);
  cell.settle();
  REQUIRE(cell.replies.size() == 1);
  CHECK(parse_answer(cell.replies[0], 7, "api.example.com")->addresses == std::vector<std::uint32_t>{kHost});
  CHECK(cell.verdicts == Verdicts{Verdict::kAnswered});
  // From the cache, with the time that is left, and no longer than it holds.
  cell.pass(std::chrono::seconds(20));
  cell.query("api.example.com");
  CHECK(cell.asked.empty());
  CHECK(parse_answer(cell.replies[0], 7, "api.example.com")->ttl == 40);
  cell.pass(std::chrono::seconds(40));
  cell.query("api.example.com");
  CHECK(cell.asked.size() == 1);
}

TEST_CASE("an answer of which nothing is accepted is dropped and not remembered") {
  Driven cell;
  cell.query("api.example.com");
  cell.answer({a_record("api.example.com", kInside, 60)});
  cell.engine.decided({1, 0}, cell.now);
  cell.settle();
  CHECK(cell.verdicts == Verdicts{Verdict::kDenied});
  CHECK(cell.rcode() == 0);
  CHECK(cell.replies[0][7] == 0);
  cell.query("api.example.com");
  CHECK(cell.asked.size() == 1);
}

TEST_CASE("a guess is not heard, and silence goes to the next server, then fails") {
  Driven cell;
  cell.query("api.example.com");
  cell.engine.answer(1, answer_with("api.example.com", {a_record("api.example.com", kHost, 60)}, 99), cell.now);
  cell.engine.answer(2, answer_with("api.example.com", {a_record("api.example.com", kHost, 60)}, 100), cell.now);
  cell.engine.answer(1, answer_with("other.example.com", {a_record("other.example.com", kHost, 60)}, 100), cell.now);
  cell.settle();
  CHECK(cell.proposals.empty());
  REQUIRE(cell.engine.next_deadline().has_value());
  cell.pass(Engine::kPatience);
  REQUIRE(cell.asked.size() == 1);
  CHECK(cell.asked[0].upstream == kSecond);
  cell.engine.unreachable(1, cell.now);
  cell.settle();
  REQUIRE(cell.asked.size() == 1);
  CHECK(cell.asked[0].upstream == kFirst);
  cell.pass(Engine::kPatience);
  CHECK(cell.verdicts == Verdicts{Verdict::kUpstream});
  CHECK(cell.rcode() == 2);
  CHECK_FALSE(cell.engine.next_deadline().has_value());
  // A daemon that does not decide fails as well.
  cell.query("api.example.com");
  cell.answer({a_record("api.example.com", kHost, 60)}, 2);
  cell.pass(Engine::kDecisionPatience);
  CHECK(cell.verdicts == Verdicts{Verdict::kUpstream});
}

TEST_CASE("a truncated answer is asked for again over TCP, under another id") {
  Driven cell;
  cell.query("api.example.com");
  base::Bytes truncated = answer_with("api.example.com", {}, 100);
  truncated[2] |= 2;
  cell.engine.answer(1, truncated, cell.now);
  cell.settle();
  REQUIRE(cell.asked.size() == 1);
  CHECK(cell.asked[0].stream);
  CHECK(cell.asked[0].message[1] == 101);
  truncated[1] = 101;
  cell.engine.answer(1, truncated, cell.now);  // also over TCP: that server is of no use
  cell.settle();
  REQUIRE(cell.asked.size() == 1);
  CHECK_FALSE(cell.asked[0].stream);
  CHECK(cell.asked[0].upstream == kSecond);
}

TEST_CASE("the same question twice is asked once, and questions at one time are bounded") {
  Driven cell;
  cell.query("api.example.com");
  cell.query("api.example.com");
  CHECK(cell.asked.empty());
  cell.answer({a_record("api.example.com", kHost, 60)});
  cell.engine.decided({1, 1}, cell.now);
  cell.settle();
  CHECK(cell.replies.size() == 2);
  for (std::size_t i = 0; i < Engine::kMaxLookups; ++i) {
    cell.query("h" + std::to_string(i) + ".wild.example");
    CHECK(cell.asked.size() == 1);
  }
  cell.query("last.wild.example");
  CHECK(cell.asked.empty());
  CHECK(cell.verdicts == Verdicts{Verdict::kRate});
}

TEST_CASE("budget and rate refuse, each under its name") {
  Driven cell(3);
  for (int i = 0; i < 3; ++i) {
    cell.query("other.example.com");
    CHECK(cell.verdicts == Verdicts{Verdict::kNotListed});
  }
  cell.query("api.example.com");
  CHECK(cell.verdicts == Verdicts{Verdict::kQuota});
  CHECK(cell.rcode() == 5);
  CHECK(cell.asked.empty());

  Driven fast;
  std::size_t refused = 0;
  for (int i = 0; i < 300; ++i) {
    fast.query("other.example.com");
    refused += fast.verdicts == Verdicts{Verdict::kRate} ? 1 : 0;
  }
  CHECK(refused == 300 - Engine::kBurst - 1);
  fast.pass(std::chrono::seconds(1));
  fast.query("other.example.com");
  CHECK(fast.verdicts == Verdicts{Verdict::kNotListed});
}

TEST_CASE("a cell that remembers many names stays within its memory") {
  Driven cell;
  for (std::uint32_t i = 1; i <= Engine::kMaxCached + 50; ++i) {
    const std::string name = "h" + std::to_string(i) + ".wild.example";
    cell.pass(std::chrono::milliseconds(50));
    cell.query(name);
    REQUIRE(cell.asked.size() == 1);
    cell.engine.answer(
        i, answer_with(name, {a_record(name, kHost, 3000)}, static_cast<std::uint16_t>(cell.next_id - 1)), cell.now);
    cell.engine.decided({i, 1}, cell.now);
    cell.settle();
  }
  cell.pass(std::chrono::seconds(5));
  cell.query("h300.wild.example");
  CHECK(cell.asked.empty());
  cell.query("h1.wild.example");
  CHECK(cell.asked.size() == 1);
}

TEST_CASE("a server that answers with a failure and goes away costs one attempt") {
  Driven cell;
  cell.query("api.example.com");
  base::Bytes failure = answer_with("api.example.com", {}, static_cast<std::uint16_t>(cell.next_id - 1));
  failure.at(3) = static_cast<std::uint8_t>((failure.at(3) & 0xf0U) | 2U);
  cell.engine.answer(1, failure, cell.now);
  cell.engine.unreachable(1, cell.now);
  cell.settle();
  REQUIRE(cell.asked.size() == 1);
  CHECK(cell.asked[0].upstream == kSecond);
  CHECK(cell.verdicts.empty());
  cell.engine.unreachable(1, cell.now);  // the second server, once it was asked
  cell.settle();
  REQUIRE(cell.asked.size() == 1);
  CHECK(cell.asked[0].upstream == kFirst);
}

TEST_CASE("reads run out in a burst and come back with time, no more than the burst") {
  ReadBudget reads;
  BootTime now{1'000'000'000'000};
  const auto spend_all = [&] {
    std::int64_t spent = 0;
    for (; reads.left(now); ++spent) {
      reads.spend(now);
    }
    return spent;
  };
  CHECK(spend_all() == ReadBudget::kBurst);
  now = now + std::chrono::milliseconds(50);
  CHECK(spend_all() == ReadBudget::kPerSecond / 20);
  now = now + std::chrono::hours(1);
  CHECK(spend_all() == ReadBudget::kBurst);
}

TEST_CASE("the record lists different queries, counts all, and never grows beyond its bound") {
  DnsRecord record({"198.51.100.53"}, true);
  for (int i = 0; i < 3; ++i) {
    record.add({Verdict::kAnswered, kTypeA, "api.example.com"}, {5});
  }
  record.add({Verdict::kNotListed, 16, "x.example.com"}, {6});
  record.add({Verdict::kMalformed, 0, ""}, {7});
  record.set_addresses("api.example.com", std::vector<std::string>(20, "198.51.100.7"));
  for (int i = 0; i < 1000; ++i) {
    record.add({Verdict::kNotListed, 1, "label" + std::to_string(i) + ".example.com"}, {8});
  }
  const model::DnsFacts facts = record.facts();
  CHECK(facts.queries.size() == DnsRecord::kMaxRefused + 1);  // and the answered one
  CHECK(facts.queries[0].count == 3);
  CHECK(facts.queries[0].addresses.size() == DnsRecord::kMaxAddresses);
  CHECK(facts.queries[1].type == "TXT");
  CHECK(facts.queries[1].verdict == "not-listed");
  CHECK(facts.queries[2].type.empty());
  CHECK(facts.counted == 1005);
  CHECK(facts.seen + facts.suppressed == facts.counted);
  CHECK(facts.tunnel_capable);
}

TEST_CASE("names that are refused hide none that is served, nor the other way round") {
  DnsRecord record({"198.51.100.53"}, true);
  const auto many = [&](Verdict verdict, const std::string& prefix) {
    for (int i = 0; i < 300; ++i) {
      record.add({verdict, kTypeA, prefix + std::to_string(i)}, {5});
    }
  };
  many(Verdict::kNotListed, "junk");
  many(Verdict::kMalformed, "bad");
  record.add({Verdict::kAnswered, kTypeA, "api.example.com"}, {6});
  record.add({Verdict::kDenied, kTypeA, "rebind.example.com"}, {6});
  const auto lists = [&](const char* name) {
    const auto queries = record.facts().queries;
    return std::any_of(queries.begin(), queries.end(), [&](const auto& query) { return query.name == name; });
  };
  CHECK(lists("api.example.com"));
  CHECK(lists("rebind.example.com"));
  many(Verdict::kAnswered, "host");
  const model::DnsFacts facts = record.facts();
  CHECK(facts.queries.size() == DnsRecord::kMaxQueries);
  using Counters = std::vector<std::pair<std::string, std::uint64_t>>;
  CHECK(facts.counters == Counters{{"answered", 301}, {"not-listed", 300}, {"malformed", 300}, {"denied-address", 1}});
  CHECK(facts.seen + facts.suppressed == 902);
  CHECK(facts.counted == 902);
  for (std::size_t i = 0; i < facts.queries.size(); ++i) {
    CHECK(facts.queries[i].seq == i + 1);
  }
}
