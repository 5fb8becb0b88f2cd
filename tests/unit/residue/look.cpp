#include "residue/look.hpp"

#include <doctest/doctest.h>

namespace cellrund::residue {

TEST_CASE("a look that found nothing and saw everything is one good check") {
  const Look look("cgroup", "stat");
  model::ResidueReport report;
  look.report_to(report);
  REQUIRE(report.checks.size() == 1);
  CHECK(report.checks[0].ok);
  CHECK(report.checks[0].found == "absent");
  CHECK(model::verdict_of(report) == model::Verdict::kClean);
}

TEST_CASE("a look that could not see makes the verdict UNKNOWN, and the check is not ok") {
  Look look("bpf", "ids");
  look.blind("EPERM");
  look.blind("EPERM");
  model::ResidueReport report;
  look.report_to(report);
  CHECK(report.unknown.size() == 1);
  CHECK(!report.checks[0].ok);
  CHECK(report.checks[0].found == "not known");
  CHECK(model::verdict_of(report) == model::Verdict::kUnknown);
}

TEST_CASE("residue wins over blindness") {
  Look look("bpf", "ids");
  look.blind("EPERM");
  look.found({{model::ItemKind::kBpfMap, "x", "7", "journalled id"}, false});
  model::ResidueReport report;
  look.report_to(report);
  CHECK(model::verdict_of(report) == model::Verdict::kResidue);
}

TEST_CASE("findings are bounded but counted, and untrusted names are quoted in the summary") {
  Look look("file", "lstat");
  for (int i = 0; i < 1000; ++i) {
    look.found({{model::ItemKind::kFile, "a\nb", "1:2", ""}, false});
  }
  model::ResidueReport report;
  look.report_to(report);
  CHECK(report.residue.size() == 256);
  CHECK(report.checks[0].found.starts_with("1000: "));
  CHECK(report.checks[0].found.find('\n') == std::string::npos);
}

TEST_CASE("only what may still vanish is worth another look") {
  Look look("process", "stat");
  CHECK(!look.unsettled());
  look.found({{model::ItemKind::kProcess, "sh", "1:2", ""}, false});
  look.blind("EPERM");
  CHECK(!look.unsettled());
  look.found({{model::ItemKind::kProcess, "sh", "3:4", "exiting"}, true});
  CHECK(look.unsettled());
}

}  // namespace cellrund::residue
