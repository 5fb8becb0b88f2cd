// The evidence of one job while it grows: each step adds what it knows, and every state change goes to the timeline,
// the ledger and the live view together. Used by the job's cell thread alone.
#pragma once

#include <string>

#include "base/result.hpp"
#include "cell/services.hpp"
#include "model/evidence.hpp"

namespace cellrund::cell {

class JobRecord {
 public:
  JobRecord(Services& services, std::string uid, model::Evidence evidence)
      : services_(services), uid_(std::move(uid)), evidence_(std::move(evidence)) {}

  [[nodiscard]] model::Evidence& facts() noexcept { return evidence_; }

  // Enters a state that is not the last one.
  void enter(model::State state, std::string_view cause);

  // Seals the record and closes the job: final state, record and settled inventory in one transaction. On failure the
  // job stays open (a restarted daemon finishes it), and the cause is logged and shown to whoever follows the job.
  bool close(const model::Outcome& outcome, std::optional<model::Verdict> verdict);

 private:
  Services& services_;
  std::string uid_;
  model::Evidence evidence_;
};

// What the ledger knows of a job, as a client sees it.
[[nodiscard]] JobView view_of(const ledger::JobRow& row);

// An account that does not add up is a gap, and makes the record partial.
void note_imbalance(const model::EgressFacts& egress, model::Evidence& evidence);

[[nodiscard]] model::TimelineEntry timeline_entry(model::State state, std::string_view cause);

}  // namespace cellrund::cell
