// The way back. Works from the journalled inventory alone, so it is the same after a normal end, a partial start and a
// crash. It always runs to its end and returns what failed; whether anything is left is decided by the residue scan, which
// shares no code with it.
#pragma once

#include <string>
#include <vector>

#include "cell/services.hpp"
#include "model/inventory.hpp"
#include "model/node.hpp"

namespace cellrund::cell {

// Order: filter to KILLED → processes of the cell → containerd's objects → whatever process survived → network →
// cgroups → files. Every wait is bounded; containerd gets kContainerdPatience in all.
// `boot_id`: the boot of the inventory; in another one its processes are long gone and their numbers are other people's.
std::vector<std::string> tear_down(Services& services, const model::CellName& name, const model::Inventory& inventory,
                                   const std::string& boot_id);

// The first step alone: SIGKILL to everything that the inventory names, without waiting. For a restarted daemon that has
// many cells to end.
void kill_processes(Services& services, const model::CellName& name, const model::Inventory& inventory,
                    const std::string& boot_id);

inline constexpr std::chrono::seconds kContainerdPatience{10};

}  // namespace cellrund::cell
