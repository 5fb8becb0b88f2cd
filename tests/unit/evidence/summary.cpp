#include "evidence/summary.hpp"

#include <doctest/doctest.h>

#include <string>

#include "evidence/statement.hpp"
#include "facts.hpp"
#include "golden.hpp"

using namespace cellrund;
namespace test = evidence::test;

namespace {

std::string summary_of(const model::Evidence& facts) {
  const auto sealed = evidence::seal(facts, test::node_key());
  REQUIRE(sealed.ok());
  const auto record = evidence::verify(base::as_bytes(sealed->envelope), test::node_key().public_key());
  REQUIRE(record.ok());
  return evidence::summary(*record);
}

}  // namespace

TEST_CASE("the summaries are the golden ones") {
  test::check_golden("evidence-summary.txt", summary_of(test::full()));
  test::check_golden("evidence-refused-summary.txt", summary_of(test::refused()));
}

TEST_CASE("residue, unknowns and failed checks are shown by name") {
  auto facts = test::full();
  model::ResidueReport& report = facts.teardown->residue;
  report.verdict = model::Verdict::kResidue;
  report.residue.push_back({model::ItemKind::kMount, "/run/x", "77", "marker"});
  report.unknown.push_back({"bpf", "EPERM"});
  report.checks.push_back({"mount", "/proc/self/mountinfo", "absent", "/run/x", false});
  const std::string text = summary_of(facts);
  CHECK(text.find("RESIDUE: 2 objects made, 1 left, 2 of 3 checks as expected") != std::string::npos);
  CHECK(text.find("left: mount /run/x (marker)") != std::string::npos);
  CHECK(text.find("not seen: bpf: EPERM") != std::string::npos);
  CHECK(text.find("check: mount: expected absent, found /run/x") != std::string::npos);
}

TEST_CASE("nothing that a guest wrote reaches the terminal unescaped") {
  auto facts = test::full();
  facts.lane->guest_kernel_release = "6.1\x1b]0;owned\x07\nverdict CLEAN \xe2\x80\xae";
  facts.outcome.message = "\r\x1b[2J";
  for (const char c : summary_of(facts)) {
    CHECK((c == '\n' || (c >= 0x20 && c < 0x7f)));
  }
}
