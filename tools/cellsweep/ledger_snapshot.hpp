// The journal of a node, read from a copy of its ledger, so that neither a running daemon nor a dead node's file is
// touched. The columns used are part of the ledger's contract (runtime/ledger/schema.hpp).
#pragma once

#include <string>
#include <vector>

#include "base/result.hpp"
#include "model/inventory.hpp"
#include "model/node.hpp"

namespace cellrund::cellsweep {

struct JournalledCell {
  std::string uid;
  bool closed = false;  // sealed
  std::string boot_id;  // the boot that its identities are of
  model::Inventory inventory;  // what was not yet proven absent
};

struct LedgerSnapshot {
  model::NodeTag node;
  bool held = false;  // a daemon has the ledger open: its unclosed cells are alive
  std::vector<JournalledCell> cells;
};

// kNotFound without a ledger; kUnavailable when it kept changing under the copy; kFailedPrecondition for another schema.
base::Result<LedgerSnapshot> read_ledger(const std::string& path);

}  // namespace cellrund::cellsweep
