// What the independent scan saw after teardown.
#pragma once

#include <string>
#include <vector>

#include "model/inventory.hpp"
#include "model/outcome.hpp"

namespace cellrund::model {

// One look at one source of truth. `ok` is "found == expected"; a probe that could not look is listed in `unknown`.
struct ResidueCheck {
  std::string probe;     // "process", "cgroup", ... as in docs/RESIDUE.md
  std::string method;    // what was read, e.g. "/proc/*/mountinfo"
  std::string expected;  // "absent"
  std::string found;     // "absent", or what was found
  bool ok = true;
};

struct ResidueItem {
  ItemKind kind = ItemKind::kFile;
  std::string name;
  std::string identity;
  std::string why;  // by which marker or identity it is attributed to the cell
};

struct ResidueUnknown {
  std::string probe;
  std::string cause;
};

struct ResidueReport {
  Verdict verdict = Verdict::kUnknown;
  std::vector<ResidueCheck> checks;
  std::vector<ResidueItem> residue;
  std::vector<ResidueUnknown> unknown;
};

// RESIDUE when anything was found, else UNKNOWN when anything could not be looked at, else CLEAN. A report without a
// single check is UNKNOWN.
[[nodiscard]] Verdict verdict_of(const ResidueReport& report) noexcept;

}  // namespace cellrund::model
