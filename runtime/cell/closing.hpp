// The end that every started job shares, whether its thread lived through it or a restarted daemon found it in the
// journal: tear down, scan, seal, and give the capacity back only if the scan says CLEAN.
#pragma once

#include <optional>
#include <string>

#include "cell/record.hpp"
#include "model/node.hpp"

namespace cellrund::cell {

// `boot_id`: the boot that the journal's identities are of; in another one nothing is killed or claimed by them.
// `ticket` absent: there was no slot yet. Returns the verdict; absent when nothing had been created.
std::optional<model::Verdict> close_cell(Services& services, JobRecord& record, const model::CellName& name,
                                         const model::Outcome& outcome, const std::string& boot_id,
                                         admit::Ticket* ticket);

// The slot in a link name of the inventory; nullopt when the cell never got as far as a network.
[[nodiscard]] std::optional<std::uint32_t> slot_of(const model::NodeTag& node, const model::Inventory& inventory);

}  // namespace cellrund::cell
