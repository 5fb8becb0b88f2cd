#include "cell/closing.hpp"

#include <charconv>

#include "base/log.hpp"
#include "cell/teardown.hpp"
#include "residue/scan.hpp"

namespace cellrund::cell {
namespace {

constexpr std::chrono::seconds kScanPatience{20};

// Whether the scan has to ask containerd: only cells that may have objects in it.
bool in_containerd(const model::Inventory& inventory) {
  for (const model::InventoryItem& item : inventory) {
    if (item.kind == model::ItemKind::kContainer || item.kind == model::ItemKind::kTask) {
      return true;
    }
  }
  return false;
}

}  // namespace

std::optional<std::uint32_t> slot_of(const model::NodeTag& node, const model::Inventory& inventory) {
  const std::string prefix = "cj" + node.value;
  for (const model::InventoryItem& item : inventory) {
    if (item.kind != model::ItemKind::kLink || !item.name.starts_with(prefix)) {
      continue;
    }
    std::uint32_t slot = 0;
    const std::string_view digits = std::string_view(item.name).substr(prefix.size());
    const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), slot, 36);
    if (parsed.ec == std::errc() && parsed.ptr == digits.data() + digits.size()) {
      return slot;
    }
  }
  return std::nullopt;
}

std::optional<model::Verdict> close_cell(Services& services, JobRecord& record, const model::CellName& name,
                                         const model::Outcome& outcome, const std::string& boot_id,
                                         admit::Ticket* ticket) {
  auto inventory = services.ledger.inventory(name.uid);
  std::optional<model::Verdict> verdict;
  if (!inventory.ok()) {
    // Without the journal nobody can say what the cell owned.
    base::log::error("cell=" + name.uid + " step=inventory error=" + base::log::quoted(inventory.error().message()));
    verdict = model::Verdict::kUnknown;
  } else if (!inventory->empty()) {
    record.enter(model::State::kTearingDown, model::to_string(outcome.reason));
    model::TeardownFacts facts;
    facts.started = base::WallTime::now();
    facts.created = *inventory;
    facts.failures = tear_down(services, name, *inventory, boot_id);
    residue::CellScope scope;
    scope.node = services.tag;
    scope.uid = name.uid;
    scope.slot = name.slot;
    scope.inventory = std::move(inventory).value();
    scope.boot_id = boot_id;
    scope.paths = services.scan_paths;
    scope.node_uids = services.scan_uids;
    if (in_containerd(scope.inventory)) {
      scope.vmm_uid = services.vmm_uid_base + name.slot;
    } else {
      scope.paths.containerd.reset();
    }
    facts.residue = residue::scan_cell(scope, base::Deadline::after(kScanPatience));
    facts.finished = base::WallTime::now();
    verdict = facts.residue.verdict;
    for (const std::string& failure : facts.failures) {
      base::log::warn("cell=" + name.uid + " step=teardown error=" + base::log::quoted(failure, 512));
    }
    for (const model::ResidueItem& item : facts.residue.residue) {
      base::log::error("cell=" + name.uid + " step=scan residue=" + std::string(model::to_string(item.kind)) + " name=" +
                       base::log::quoted(item.name) + " why=" + base::log::quoted(item.why));
    }
    for (const model::ResidueUnknown& unknown : facts.residue.unknown) {
      base::log::warn("cell=" + name.uid + " step=scan unknown=" + unknown.probe + " cause=" + base::log::quoted(unknown.cause));
    }
    if (verdict == model::Verdict::kClean) {
      for (model::SecretFacts& secret : record.facts().secrets) {
        if (secret.issued.has_value() && !secret.revoked.has_value()) {
          secret.revoked = facts.finished;
        }
      }
    }
    record.facts().teardown = std::move(facts);
  }
  const bool sealed = record.close(outcome, verdict);
  if (ticket != nullptr) {
    // Capacity returns after the record is durable, and only if nothing is left.
    if (sealed && verdict.value_or(model::Verdict::kClean) == model::Verdict::kClean) {
      ticket->release();
    } else {
      ticket->quarantine();
    }
  }
  return verdict;
}

}  // namespace cellrund::cell
