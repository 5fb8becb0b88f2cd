#include "cell/recover.hpp"

#include <utility>
#include <vector>

#include "base/log.hpp"
#include "cell/closing.hpp"
#include "cell/log_store.hpp"
#include "cell/record.hpp"
#include "cell/teardown.hpp"

namespace cellrund::cell {
namespace {

using model::Reason;

// What is still known of a job whose thread is gone.
model::Evidence evidence_of(const Services& services, const ledger::JobRow& row, bool rebooted) {
  model::Evidence out;
  out.node = services.facts;
  out.request.uid = row.job.uid;
  out.request.spec_digest = row.job.spec_digest;
  out.request.signer_key_id = row.job.signer_key_id;
  out.request.tenant = row.job.tenant;
  out.request.name = row.job.name;
  out.request.peer = row.job.peer;
  out.timeline = row.timeline;
  const std::string from = row.timeline.empty() ? "?" : base::format_rfc3339(row.timeline.back().wall, true);
  out.gaps.push_back("from " + from + " to " + base::format_rfc3339(base::WallTime::now(), true) + ": " +
                     (rebooted ? "the node was restarted" : "the daemon was not running"));
  out.incomplete_because = rebooted ? "the node was restarted while the job ran" : "the daemon was restarted while the job ran";
  return out;
}

}  // namespace

base::Result<Recovered> recover(Services& services) {
  Recovered done;
  const std::vector<ledger::JobRow> rows = CR_TRY(services.ledger.unfinished());

  // Everything that runs is ended first: a slow teardown of one cell must not give another one time.
  std::vector<std::pair<model::CellName, bool>> cells;  // name, whether the slot is known
  for (const ledger::JobRow& row : rows) {
    const model::Inventory inventory = CR_TRY(services.ledger.inventory(row.job.uid));
    const auto slot = slot_of(services.tag, inventory);
    cells.emplace_back(model::CellName{services.tag, row.job.uid, slot.value_or(admit::CapacityPool::kMaxSlot)},
                       slot.has_value());
    kill_processes(services, cells.back().first, inventory, row.boot_id);
  }

  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto& [name, has_slot] = cells[i];
    // The job's own boot, not the ledger's last one: the first start after a reboot may have failed before it came here.
    const bool rebooted = rows[i].boot_id != services.facts.boot_id;
    JobView view = view_of(rows[i]);
    services.table.insert(std::move(view), CR_TRY(CancelFlag::create()));
    JobRecord record(services, name.uid, evidence_of(services, rows[i], rebooted));
    if (has_slot && !rebooted) {
      if (auto egress = netpolicy::read_facts(name, services.paths.run); egress.ok()) {
        note_imbalance(*egress, record.facts());  // what the daemon that died had sampled is missing
        record.facts().egress = std::move(egress).value();
      }
    }
    if (auto logs = repair_log(log_folder(services.paths.state, name.uid)); logs.ok()) {
      record.facts().logs = std::move(logs).value();
    } else if (logs.error().code() != base::Errc::kNotFound) {
      record.facts().gaps.push_back("logs: " + logs.error().message());
    }
    const Reason reason = rebooted ? Reason::kNodeRebooted : Reason::kDaemonRestarted;
    const model::Outcome outcome{.state = model::terminal_state(reason),
                                 .reason = reason,
                                 .exit_code = {},
                                 .signal = {},
                                 .message = "ended by the restarted daemon"};
    std::optional<admit::Ticket> ticket;
    if (has_slot) {
      ticket = CR_TRY(services.capacity.adopt(name.slot, {}));
    }
    const auto verdict = close_cell(services, record, name, outcome, rows[i].boot_id, ticket.has_value() ? &*ticket : nullptr);
    ++done.jobs;
    if (verdict.value_or(model::Verdict::kClean) != model::Verdict::kClean) {
      ++done.quarantined;
    }
    base::log::info("cell=" + name.uid + " step=recover outcome=" + std::string(model::to_string(reason)));
  }

  // Slots of cells that earlier runs could not prove clean stay withheld over a restart.
  for (const std::string& uid : CR_TRY(services.ledger.unclean())) {
    const auto slot = slot_of(services.tag, CR_TRY(services.ledger.inventory(uid)));
    if (!slot.has_value()) {
      continue;
    }
    if (auto ticket = services.capacity.adopt(*slot, {}); ticket.ok()) {
      ticket->quarantine();
    }
  }
  return done;
}

}  // namespace cellrund::cell
