#include "cell/record.hpp"

#include "base/log.hpp"
#include "evidence/statement.hpp"

namespace cellrund::cell {

model::TimelineEntry timeline_entry(model::State state, std::string_view cause) {
  return {.state = state, .wall = base::WallTime::now(), .boot = base::BootTime::now(), .cause = std::string(cause)};
}

JobView view_of(const ledger::JobRow& row) {
  JobView view;
  view.uid = row.job.uid;
  view.name = row.job.name;
  view.tenant = row.job.tenant;
  view.lane = row.job.lane;
  view.image = row.job.image;
  view.spec_digest = row.job.spec_digest;
  view.owner_uid = row.job.peer.uid;
  view.state = row.state;
  view.outcome = row.outcome;
  view.verdict = row.verdict;
  view.evidence_digest = row.evidence_digest;
  view.timeline = row.timeline;
  view.closed = row.closed;
  return view;
}

void note_imbalance(const model::EgressFacts& egress, model::Evidence& evidence) {
  if (egress.imbalance.empty()) {
    return;
  }
  evidence.gaps.push_back("egress: the account does not balance: " + egress.imbalance);
  evidence.incomplete_because += evidence.incomplete_because.empty() ? "" : "; ";
  evidence.incomplete_because += "the egress account does not balance";
}

void JobRecord::enter(model::State state, std::string_view cause) {
  const model::TimelineEntry entry = timeline_entry(state, cause);
  evidence_.timeline.push_back(entry);
  if (auto status = services_.ledger.advance(uid_, entry); !status.ok()) {
    // A stopped ledger refuses the next durable step, which ends the job; the view still tells where it was.
    base::log::error("cell=" + uid_ + " step=advance error=" + base::log::quoted(status.error().message()));
  }
  services_.table.update(uid_, [&](JobView& view) {
    view.state = state;
    view.timeline.push_back(entry);
  });
}

bool JobRecord::close(const model::Outcome& outcome, std::optional<model::Verdict> verdict) {
  const model::TimelineEntry last = timeline_entry(outcome.state, model::to_string(outcome.reason));
  evidence_.timeline.push_back(last);
  evidence_.outcome = outcome;
  auto sealed = evidence::seal(evidence_, services_.node_key);
  auto status = sealed.ok() ? services_.ledger.seal(uid_, {.final = last,
                                                            .outcome = outcome,
                                                            .verdict = verdict,
                                                            .envelope = sealed->envelope,
                                                            .digest = sealed->digest})
                            : base::Status(std::move(sealed).error());
  if (!status.ok()) {
    base::log::error("cell=" + uid_ + " step=seal error=" + base::log::quoted(status.error().message()));
    services_.table.update(uid_, [&](JobView& view) { view.unsealed = status.error().message(); });
    return false;
  }
  services_.table.update(uid_, [&](JobView& view) {
    view.state = outcome.state;
    view.outcome = outcome;
    view.verdict = verdict;
    view.evidence_digest = sealed->digest;
    view.timeline.push_back(last);
    view.closed = true;
  });
  base::log::info("cell=" + uid_ + " step=close outcome=" + std::string(model::to_string(outcome.state)) + " reason=" +
                  std::string(model::to_string(outcome.reason)) + " teardown=" +
                  std::string(verdict.has_value() ? model::to_string(*verdict) : "none") +
                  (outcome.message.empty() ? "" : " message=" + base::log::quoted(outcome.message, 256)));
  return true;
}

}  // namespace cellrund::cell
