#include "admit/admission.hpp"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "admit/egress_grants.hpp"
#include "admit/glob.hpp"
#include "model/quantity.hpp"

namespace cellrund::admit {

using model::JobSpec;
using model::Lane;
using model::Reason;
using model::Refusal;

namespace {

using Check = std::optional<Refusal>;  // empty: nothing against it

constexpr std::array<Lane, 5> kPreference{Lane::kKata, Lane::kMicrovm, Lane::kGvisor, Lane::kRunc, Lane::kProcess};

Refusal denied(std::string field, std::string_view why, std::string hint) {
  std::string message = field + " " + std::string(why);
  return {Reason::kPolicyDenied, std::move(message), std::move(hint), std::move(field)};
}

Check check_identity(const JobSpec& spec, const Grant& grant, const model::Principal& principal) {
  const auto& allowed = grant.namespaces;
  if (std::find(allowed.begin(), allowed.end(), spec.metadata.tenant) == allowed.end() &&
      std::find(allowed.begin(), allowed.end(), "*") == allowed.end()) {
    return denied("metadata.namespace", "is not one that the signing key may use", "`cellrun trust ls` shows its namespaces");
  }
  const bool itself = principal.type == "service" && principal.id == grant.key_id;
  if (!itself && !any_match(grant.principals, principal.type + ":" + principal.id)) {
    return denied("spec.principal", "is not one that the signing key may speak for", "`cellrun trust ls` shows its principals");
  }
  if (!any_match(grant.images, spec.container.image.repository)) {
    return denied("spec.container.image", "is not one that the signing key may run", "`cellrun trust ls` shows its images");
  }
  return {};
}

Check check_amounts(const JobSpec& spec, const Grant& grant, std::uint64_t open_jobs) {
  if (spec.min_tier < grant.min_tier) {
    return denied("spec.minTier", "is below the signing key's minTier of " + std::to_string(grant.min_tier), "ask for tier " +
                  std::to_string(grant.min_tier) + " or have the grant changed");
  }
  if (spec.active_deadline > grant.max_deadline) {
    return denied("spec.activeDeadlineSeconds", "is above the signing key's " + std::to_string(grant.max_deadline.count()), "ask for less time");
  }
  const model::Limits& want = spec.limits;
  const model::Limits& most = grant.resources;
  if (want.cpu_millis > most.cpu_millis) {
    return denied("spec.resources.limits.cpu", "is above the signing key's " + model::format_cpu_millis(most.cpu_millis), "ask for less");
  }
  if (want.memory_bytes > most.memory_bytes) {
    return denied("spec.resources.limits.memory", "is above the signing key's " + model::format_bytes(most.memory_bytes), "ask for less");
  }
  if (want.pids > most.pids) {
    return denied("spec.resources.limits.pids", "is above the signing key's " + std::to_string(most.pids), "ask for fewer");
  }
  if (open_jobs >= grant.max_concurrent) {
    return Refusal{Reason::kPolicyDenied, "the signing key has its most jobs at once, " + std::to_string(grant.max_concurrent),
                   "submit again when one of them is closed", {}};
  }
  return {};
}

// A secret is its namespace's, and within that what the signer's grant names.
Check check_secrets(const JobSpec& spec, const Grant& grant) {
  for (std::size_t i = 0; i < spec.secrets.size(); ++i) {
    const std::string& ref = spec.secrets[i].ref;
    const std::string field = "spec.secrets[" + std::to_string(i) + "].ref";
    if (!ref.starts_with(spec.metadata.tenant + "/")) {
      return denied(field, "is not of the job's namespace", "a job gets secrets of metadata.namespace alone");
    }
    if (!any_match(grant.secrets, ref)) {
      return denied(field, "is not one that the signing key may use", "`cellrun trust ls` shows its secrets");
    }
  }
  return {};
}

// A name takes a resolver, and that one somebody to ask.
Check check_names(const JobSpec& spec, const NodePolicy& policy) {
  const auto& rules = spec.egress.rules;
  const auto named = std::find_if(rules.begin(), rules.end(), [](const auto& rule) { return rule.name() != nullptr; });
  if (policy.resolves_names || named == rules.end()) {
    return {};
  }
  return denied(model::rule_field(static_cast<std::size_t>(named - rules.begin())) + ".to.fqdn",
                "needs a resolver, and this node has no name server to ask",
                "have [network] dns_upstream set on the node, or name the target by a cidr");
}

// Why an offered lane does not count, or null.
const char* unusable(const LaneOffer& offer, bool allow_emulated_tier2) {
  if (offer.accel == Accel::kTcg && !allow_emulated_tier2) {
    return "runs only under emulation on this node, and the node's policy does not count that as a microVM";
  }
  return nullptr;
}

const LaneOffer* offer_of(const NodePolicy& policy, Lane lane) {
  const auto found = std::find_if(policy.lanes.begin(), policy.lanes.end(), [lane](const LaneOffer& o) { return o.lane == lane; });
  return found == policy.lanes.end() ? nullptr : &*found;
}

base::Result<Lane, Refusal> choose_lane(const JobSpec& spec, const NodePolicy& policy) {
  constexpr const char* kEmulationHint = "a node whose [lanes] allow_emulated_tier2 is true accepts it";
  if (spec.lane.has_value()) {
    // The parser compared the two already; a floor is worth a second look.
    if (model::tier_of(*spec.lane) < spec.min_tier) {
      return denied("spec.lane", "is of a lower tier than spec.minTier", "lower minTier or name another lane");
    }
    const LaneOffer* offer = offer_of(policy, *spec.lane);
    if (offer == nullptr) {
      return Refusal{Reason::kLaneUnavailable, "lane " + std::string(model::to_string(*spec.lane)) + " is not available on this node",
                     "`cellrun capacity` lists this node's lanes", "spec.lane"};
    }
    if (const char* why = unusable(*offer, policy.allow_emulated_tier2); why != nullptr) {
      return Refusal{Reason::kLaneUnavailable, "lane " + std::string(model::to_string(*spec.lane)) + " " + why, kEmulationHint, "spec.lane"};
    }
    return *spec.lane;
  }
  const char* nearest = nullptr;
  for (int tier = spec.min_tier; tier <= 2; ++tier) {
    for (const Lane lane : kPreference) {
      const LaneOffer* offer = model::tier_of(lane) == tier ? offer_of(policy, lane) : nullptr;
      if (offer == nullptr) {
        continue;
      }
      const char* why = unusable(*offer, policy.allow_emulated_tier2);
      if (why == nullptr) {
        return lane;
      }
      nearest = why;
    }
  }
  const std::string tier = "tier " + std::to_string(spec.min_tier);
  if (nearest != nullptr) {
    return Refusal{Reason::kLaneUnavailable, "the only lane of " + tier + " or above " + nearest, kEmulationHint, "spec.minTier"};
  }
  return Refusal{Reason::kLaneUnavailable, "no lane of " + tier + " or above is available on this node",
                 "`cellrun doctor` says what is missing", "spec.minTier"};
}

// What the chosen lane cannot honour. Everything else of a valid spec it can.
Check check_lane(const JobSpec& spec, Lane lane) {
  if (lane != Lane::kProcess) {
    return {};
  }
  const auto refuse = [](std::string field, std::string_view why) {
    std::string message = field + " " + std::string(why);
    return Refusal{Reason::kUnsupportedField, std::move(message), "use a lane with a kernel of its own: microvm", std::move(field)};
  };
  const model::SecurityContext& security = spec.container.security;
  if (security.run_as_user == 0) {
    return refuse("spec.container.securityContext.runAsUser", "0 is root, which the process lane does not give");
  }
  if (security.run_as_group == 0) {
    return refuse("spec.container.securityContext.runAsGroup", "0 is root's group, which the process lane does not give");
  }
  if (!security.capabilities.empty()) {
    return refuse("spec.container.securityContext.capabilities", "are not given in the process lane");
  }
  if (!security.no_new_privileges) {
    return refuse("spec.container.securityContext.noNewPrivileges", "false is not possible in the process lane");
  }
  return {};
}

}  // namespace

base::Result<model::AdmittedJob, Refusal> Admission::admit(model::VerifiedJob&& job, const TrustStore& trust, std::uint64_t open_jobs) const {
  const JobSpec& spec = job.spec();
  const Grant* grant = trust.find(job.signer_key_id());
  // The store may have been replaced since the signature was checked.
  if (grant == nullptr || (grant->not_after.has_value() && job.verified_at() >= *grant->not_after)) {
    return Refusal{Reason::kSignerNotTrusted, "the signing key " + job.signer_key_id() + " is not trusted any more", "sign with another key", {}};
  }
  if (grant->revoked) {
    return Refusal{Reason::kSignerRevoked, "the signing key " + job.signer_key_id() + " is revoked", "sign with another key", {}};
  }
  model::Principal principal = spec.principal.value_or(model::Principal{"service", job.signer_key_id(), {}});
  if (auto refusal = check_identity(spec, *grant, principal); refusal.has_value()) {
    return std::move(*refusal);
  }
  if (auto refusal = check_amounts(spec, *grant, open_jobs); refusal.has_value()) {
    return std::move(*refusal);
  }
  if (auto refusal = check_secrets(spec, *grant); refusal.has_value()) {
    return std::move(*refusal);
  }
  const EgressGrants grants = EgressGrants::from(grant->egress);
  if (auto refusal = grants.check(spec.egress); refusal.has_value()) {
    return std::move(*refusal);
  }
  if (auto refusal = check_names(spec, policy_); refusal.has_value()) {
    return std::move(*refusal);
  }
  const Lane lane = CR_TRY(choose_lane(spec, policy_));
  if (auto refusal = check_lane(spec, lane); refusal.has_value()) {
    return std::move(*refusal);
  }
  std::vector<model::Relaxation> relaxations = grants.relaxations_for(spec.egress);
  return model::AdmittedJob(std::move(job), lane, std::move(principal), std::move(relaxations));
}

}  // namespace cellrund::admit
