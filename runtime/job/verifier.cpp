#include "job/verifier.hpp"

#include <algorithm>
#include <utility>

#include "crypto/digest.hpp"
#include "crypto/dsse.hpp"
#include "job/parse.hpp"

namespace cellrund::job {

namespace dsse = crypto::dsse;
using base::WallTime;
using model::Reason;
using model::Refusal;

namespace {

WallTime shifted(WallTime t, std::chrono::seconds by) { return {t.seconds + by.count(), t.nanos}; }

Refusal not_trusted(std::string message, std::string hint) {
  return {Reason::kSignerNotTrusted, std::move(message), std::move(hint), {}};
}

// The trusted key that signed, or why there is none (the rules are in the header).
base::Result<const crypto::KeyringEntry*, Refusal> find_signer(const dsse::Envelope& envelope, const crypto::Keyring& keys,
                                                               WallTime now) {
  const base::Bytes message = dsse::pae(envelope.payload_type, envelope.payload);
  const crypto::KeyringEntry* revoked = nullptr;
  const crypto::KeyringEntry* ended = nullptr;
  for (const crypto::KeyringEntry& entry : keys.entries()) {
    const bool signed_by_it =
        std::any_of(envelope.signatures.begin(), envelope.signatures.end(),
                    [&](const dsse::Signature& signature) { return entry.key.verify(message, signature.sig); });
    if (!signed_by_it) {
      continue;
    }
    if (entry.revoked) {
      revoked = &entry;
    } else if (entry.not_after.has_value() && now >= *entry.not_after) {
      ended = &entry;
    } else {
      return &entry;
    }
  }
  if (revoked != nullptr) {
    return Refusal{Reason::kSignerRevoked, "the signing key " + revoked->key.key_id() + " is revoked", "sign with another key", {}};
  }
  if (ended != nullptr) {
    return not_trusted("trust in the signing key " + ended->key.key_id() + " ended at " + base::format_rfc3339(*ended->not_after),
                       "sign with a key that is still trusted");
  }
  if (envelope.signatures.empty()) {
    return Refusal{Reason::kSignatureInvalid, "the envelope has no signature", "sign it: `cellrun sign --key KEY`", {}};
  }
  const bool any_form = std::any_of(envelope.signatures.begin(), envelope.signatures.end(), [](const dsse::Signature& s) {
    return crypto::well_formed(crypto::Algorithm::kEd25519, s.sig) || crypto::well_formed(crypto::Algorithm::kEcdsaP256, s.sig);
  });
  const bool claims_known_key = std::any_of(envelope.signatures.begin(), envelope.signatures.end(),
                                            [&](const dsse::Signature& s) { return keys.find(s.keyid) != nullptr; });
  if (any_form && !claims_known_key) {
    return not_trusted("no trusted key made a signature of this envelope",
                       keys.empty() ? "this node trusts no key at all: `cellrun trust add KEY.pub --namespace NAME`"
                                    : "have the key trusted on this node: `cellrun trust add KEY.pub --namespace NAME`");
  }
  return Refusal{Reason::kSignatureInvalid, "no signature of this envelope verifies",
                 "the bytes changed after signing, or another key signed them: sign again", {}};
}

base::Result<base::Unit, Refusal> check_times(const model::Metadata& metadata, const VerifyPolicy& policy, WallTime now) {
  const WallTime start = std::min(metadata.issued_at, metadata.not_before);
  if (metadata.expires_at > shifted(start, policy.max_validity)) {
    return Refusal{Reason::kPolicyDenied,
                   "metadata.expiresAt is more than " + std::to_string(policy.max_validity.count()) + " s after the start of validity",
                   "sign with a shorter validity", "metadata.expiresAt"};
  }
  const WallTime latest_now = shifted(now, policy.clock_skew);
  if (metadata.issued_at > latest_now) {
    return Refusal{Reason::kNotYetValid, "metadata.issuedAt is in the future", "check the clocks of signer and node", "metadata.issuedAt"};
  }
  if (metadata.not_before > latest_now) {
    return Refusal{Reason::kNotYetValid, "metadata.notBefore is not reached", "submit again at " + base::format_rfc3339(metadata.not_before),
                   "metadata.notBefore"};
  }
  if (now >= shifted(metadata.expires_at, policy.clock_skew)) {
    return Refusal{Reason::kExpired, "metadata.expiresAt has passed", "sign again", "metadata.expiresAt"};
  }
  return base::Unit{};
}

base::Result<base::Unit, Refusal> check_audience(const std::string& audience, const VerifyPolicy& policy) {
  if (audience.empty()) {
    if (!policy.require_audience) {
      return base::Unit{};
    }
    return Refusal{Reason::kWrongAudience, "spec.audience is missing, and this node requires one",
                   "name the node, its pool or its fleet", "spec.audience"};
  }
  if (std::find(policy.audiences.begin(), policy.audiences.end(), audience) == policy.audiences.end()) {
    return Refusal{Reason::kWrongAudience, "spec.audience names neither this node nor its pools or fleet",
                   "submit to the node that it names", "spec.audience"};
  }
  return base::Unit{};
}

}  // namespace

base::Result<model::VerifiedJob, Rejected> Verifier::verify(base::BytesView text, const crypto::Keyring& keys,
                                                            const VerifyPolicy& policy, WallTime now) {
  Rejected rejected;
  const auto refuse = [&rejected](Refusal refusal) {
    rejected.refusal = std::move(refusal);
    return std::move(rejected);
  };

  auto envelope = dsse::parse(text, {.max_payload_bytes = kMaxSpecBytes, .max_signatures = 8});
  if (!envelope.ok()) {
    rejected.spec_digest = crypto::digest_text(text);
    return refuse({Reason::kSignatureInvalid, "not a DSSE envelope: " + envelope.error().message(),
                   "submit the output of `cellrun sign`, or a bare jobspec with --key", {}});
  }
  rejected.spec_digest = crypto::digest_text(envelope->payload);
  if (envelope->payload_type != kPayloadType) {
    return refuse({Reason::kSignatureInvalid, "the envelope's payloadType is not that of a jobspec",
                   "it must be " + std::string(kPayloadType), {}});
  }

  auto signer = find_signer(*envelope, keys, now);
  if (!signer.ok()) {
    return refuse(std::move(signer).error());
  }
  rejected.signer_key_id = (*signer)->key.key_id();

  Identity identity;
  auto spec = parse_spec(base::as_text(envelope->payload), &identity);
  rejected.uid = identity.uid;
  rejected.tenant = identity.tenant;
  rejected.name = identity.name;
  if (!spec.ok()) {
    return refuse(std::move(spec).error());
  }
  if (auto in_time = check_times(spec->metadata, policy, now); !in_time.ok()) {
    return refuse(std::move(in_time).error());
  }
  if (auto ours = check_audience(spec->audience, policy); !ours.ok()) {
    return refuse(std::move(ours).error());
  }
  return model::VerifiedJob(std::move(*spec), std::move(rejected.spec_digest), std::move(rejected.signer_key_id), now);
}

}  // namespace cellrund::job
