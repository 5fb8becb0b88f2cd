// How a step that creates host objects writes them down: intent first, identity once it exists, both durable before the
// next step. The ledger implements it; steps see only this.
#pragma once

#include "base/result.hpp"
#include "model/inventory.hpp"

namespace cellrund::model {

class Journal {
 public:
  Journal() = default;
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;
  Journal(Journal&&) = delete;
  Journal& operator=(Journal&&) = delete;
  virtual ~Journal() = default;

  // Durable when it returns. The items (identity empty) may now come into being.
  virtual base::Status intend(const Inventory& items) = 0;
  // Adds the identity to an intended item of the same kind and name. May be written together with the next intend().
  virtual base::Status created(const InventoryItem& item) = 0;
};

}  // namespace cellrund::model
