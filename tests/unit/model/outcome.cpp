#include "model/outcome.hpp"

#include <doctest/doctest.h>

#include "model/node.hpp"
#include "model/residue_report.hpp"

using namespace cellrund::model;

TEST_CASE("the exit code follows the reason, and an unclean teardown wins over everything") {
  const auto code = [](Reason reason, std::optional<int> exit = {}, std::optional<int> signal = {},
                       std::optional<Verdict> verdict = Verdict::kClean) {
    return exit_code_for({.state = terminal_state(reason), .reason = reason, .exit_code = exit, .signal = signal, .message = {}}, verdict);
  };
  CHECK(code(Reason::kCompleted, 0) == 0);
  CHECK(code(Reason::kError, 42) == 42);
  CHECK(code(Reason::kSignaled, {}, 9) == 137);
  CHECK(code(Reason::kDeadlineExceeded) == 124);
  CHECK(code(Reason::kCancelledByUser) == 122);
  CHECK(code(Reason::kVmmCrashed) == 125);
  CHECK(code(Reason::kPidsExhausted) == 137);
  CHECK(code(Reason::kSchemaInvalid, {}, {}, std::nullopt) == 65);
  CHECK(code(Reason::kNoCapacity, {}, {}, std::nullopt) == 75);
  CHECK(code(Reason::kReplayed, {}, {}, std::nullopt) == 77);
  CHECK(code(Reason::kCompleted, 0, {}, Verdict::kResidue) == 123);
  CHECK(code(Reason::kCompleted, 0, {}, Verdict::kUnknown) == 123);
}

TEST_CASE("every reason has a name that reads back") {
  for (int i = 1; i <= static_cast<int>(Reason::kNodeShutdown); ++i) {
    const auto reason = static_cast<Reason>(i);
    CHECK_FALSE(to_string(reason).empty());
    CHECK(parse_reason(to_string(reason)) == reason);
  }
}

TEST_CASE("a report is CLEAN only when something was looked at and nothing was missed") {
  ResidueReport report;
  CHECK(verdict_of(report) == Verdict::kUnknown);
  report.checks.push_back({.probe = "process", .method = "/proc", .expected = "absent", .found = "absent", .ok = true});
  CHECK(verdict_of(report) == Verdict::kClean);
  report.unknown.push_back({"cgroup", "EACCES"});
  CHECK(verdict_of(report) == Verdict::kUnknown);
  report.residue.push_back({ItemKind::kFile, "/x", "1:2", "marker"});
  CHECK(verdict_of(report) == Verdict::kResidue);
}

TEST_CASE("link and BPF names fit the kernel's limits for every slot") {
  const CellName cell{{"0123abcd"}, "0199c1f2-7b1e-7c3a-9d2e-2f4b6a8c0e11", 46655};
  CHECK(cell.host_link().size() <= 15);
  CHECK(cell.bpf_prefix().size() <= 13);
}
