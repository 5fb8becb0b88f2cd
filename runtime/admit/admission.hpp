// Admission: may this signer ask for this, on this node, now? The only maker of AdmittedJob.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "admit/trust.hpp"
#include "base/result.hpp"
#include "model/outcome.hpp"
#include "model/stages.hpp"

namespace cellrund::admit {

enum class Accel { kNone, kKvm, kTcg };

// A lane that works on this node, proven by a real start.
struct LaneOffer {
  model::Lane lane = model::Lane::kProcess;
  Accel accel = Accel::kNone;
};

struct NodePolicy {
  std::vector<LaneOffer> lanes;
  bool allow_emulated_tier2 = false;  // otherwise a lane on emulation is not available at all
  bool resolves_names = false;        // whether a rule may name its target
};

class Admission {
 public:
  explicit Admission(NodePolicy policy) : policy_(std::move(policy)) {}

  // `open_jobs`: how many jobs of this signer are accepted and not yet closed. `job` is consumed on success only, so
  // that a refusal can still be recorded from it.
  // Refusals: SignerNotTrusted, SignerRevoked, PolicyDenied, LaneUnavailable, UnsupportedField. Nothing falls back: a
  // named lane is taken or refused; without a name it is the lowest tier at or above minTier that the node offers, and
  // in it the first of kata, microvm, gvisor, runc, process.
  base::Result<model::AdmittedJob, model::Refusal> admit(model::VerifiedJob&& job, const TrustStore& trust,
                                                         std::uint64_t open_jobs) const;

  [[nodiscard]] const NodePolicy& policy() const noexcept { return policy_; }

 private:
  NodePolicy policy_;
};

}  // namespace cellrund::admit
