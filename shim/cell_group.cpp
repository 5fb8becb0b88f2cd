#include "shim/cell_group.hpp"

#include <chrono>

#include "base/log.hpp"

namespace cellrund::shim {
namespace {

constexpr std::chrono::milliseconds kKillBudget(200);
constexpr std::chrono::seconds kRemoveBudget(2);

}  // namespace

void CellGroup::kill() const {
  if (const base::Status killed = cgroup.kill(base::Deadline::after(kKillBudget)); !killed.ok()) {
    base::log::warn("kill cgroup: " + killed.error().message() + ", ignoring: the VMM is killed by its pidfd");
  }
}

void CellGroup::remove() const {
  if (!ours) {
    return;
  }
  for (const base::Error& failure : cgroup.destroy(base::Deadline::after(kRemoveBudget))) {
    base::log::error("remove cgroup: " + failure.message());
  }
  tree.remove_empty_parents(cgroup.path());
}

}  // namespace cellrund::shim
