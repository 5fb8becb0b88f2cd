// What cellsweep does, apart from its command line: find the node tags of this host, scan each, say what was found.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "model/residue_report.hpp"
#include "residue/scope.hpp"

namespace cellrund::cellsweep {

struct Options {
  residue::Paths paths;
  std::vector<residue::UidRange> node_uids;  // as in residue::NodeScope
  std::string ledger;             // path of the ledger file
  std::vector<std::string> tags;  // empty: those of the ledger and of the run folder
  bool all_tags = false;          // also every tag that any cgroup hierarchy carries
  std::vector<std::string> live;  // uids that are known to be alive
  base::Nanoseconds budget = std::chrono::seconds(60);
};

struct NodeResult {
  model::NodeTag node;
  std::vector<std::string> live;  // cells that were left alone
  model::ResidueReport report;
};

struct Result {
  std::vector<NodeResult> nodes;
  std::vector<std::string> notes;  // what limits the answer without making it unknown
  std::vector<std::string> unknown;
  // RESIDUE if any node has it; UNKNOWN if anything could not be told, no tag to look for included.
  [[nodiscard]] model::Verdict verdict() const;
};

// Reads only; removes nothing.
[[nodiscard]] Result sweep(const Options& options);

[[nodiscard]] std::string to_json(const Result& result);
[[nodiscard]] std::string to_text(const Result& result);

}  // namespace cellrund::cellsweep
