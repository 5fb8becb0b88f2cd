#include "job/verifier.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "base/hex.hpp"
#include "crypto/digest.hpp"
#include "crypto/dsse.hpp"
#include "example.hpp"
#include "job/parse.hpp"

using namespace cellrund;
using job::test::edited;
using model::Reason;
namespace dsse = crypto::dsse;

namespace {

const base::WallTime kNow = *base::parse_rfc3339("2026-11-21T10:30:00Z");

struct Fixture {
  crypto::PrivateKey key = std::move(*crypto::PrivateKey::generate());
  crypto::PrivateKey p256 = std::move(*crypto::PrivateKey::generate(crypto::Algorithm::kEcdsaP256));
  crypto::PrivateKey revoked = std::move(*crypto::PrivateKey::generate());
  crypto::PrivateKey ended = std::move(*crypto::PrivateKey::generate());
  crypto::PrivateKey stranger = std::move(*crypto::PrivateKey::generate());
  crypto::Keyring ring;
  job::VerifyPolicy policy;

  Fixture() {
    policy.audiences = {"node-1", "pool-a"};
    REQUIRE(ring.add({key.public_key(), false, {}}).ok());
    REQUIRE(ring.add({p256.public_key(), false, base::WallTime{kNow.seconds + 1, 0}}).ok());
    REQUIRE(ring.add({revoked.public_key(), true, {}}).ok());
    REQUIRE(ring.add({ended.public_key(), false, kNow}).ok());
  }

  [[nodiscard]] base::Result<model::VerifiedJob, job::Rejected> verify(const std::string& text, base::WallTime now = kNow) const {
    return job::Verifier::verify(base::as_bytes(text), ring, policy, now);
  }
  [[nodiscard]] job::Rejected refused(const std::string& text, base::WallTime now = kNow) const {
    auto result = verify(text, now);
    REQUIRE_FALSE(result.ok());
    return std::move(result).error();
  }
  [[nodiscard]] Reason reason(const std::string& text, base::WallTime now = kNow) const { return refused(text, now).refusal.reason; }
};

std::string signed_by(const crypto::PrivateKey& key, const std::string& spec) {
  auto text = job::sign_spec(spec, key);
  REQUIRE(text.ok());
  return std::move(*text);
}

dsse::Envelope envelope_of(const crypto::PrivateKey& key, const std::string& spec, std::string_view type = job::kPayloadType) {
  auto envelope = dsse::sign(type, base::as_bytes(spec), key);
  REQUIRE(envelope.ok());
  return std::move(*envelope);
}

base::WallTime at(const char* text) { return *base::parse_rfc3339(text); }

}  // namespace

TEST_CASE_FIXTURE(Fixture, "a spec signed by a trusted key is verified, with both algorithms") {
  for (const crypto::PrivateKey* signer : {&key, &p256}) {
    const auto job = verify(signed_by(*signer, job::test::example()));
    REQUIRE(job.ok());
    CHECK(job->signer_key_id() == signer->public_key().key_id());
    CHECK(job->spec_digest() == crypto::digest_text(base::as_bytes(job::test::example())));
    CHECK(job->verified_at() == kNow);
    CHECK(job->spec().metadata.name == "fix-tests");
  }
}

TEST_CASE_FIXTURE(Fixture, "each kind of wrong signature has its own reason") {
  const std::string spec = job::test::example();
  CHECK(reason(signed_by(stranger, spec)) == Reason::kSignerNotTrusted);
  CHECK(reason(signed_by(revoked, spec)) == Reason::kSignerRevoked);
  CHECK(reason(signed_by(ended, spec)) == Reason::kSignerNotTrusted);
  CHECK(reason(signed_by(p256, spec), {kNow.seconds + 1, 0}) == Reason::kSignerNotTrusted);

  auto tampered = envelope_of(key, spec);
  tampered.payload[20] ^= 1U;
  CHECK(reason(dsse::write(tampered)) == Reason::kSignatureInvalid);

  auto stripped = envelope_of(key, spec);
  stripped.signatures.clear();
  CHECK(reason(dsse::write(stripped)) == Reason::kSignatureInvalid);

  auto empty = envelope_of(key, spec);
  empty.signatures[0].sig.clear();
  empty.signatures[0].keyid.clear();
  CHECK(reason(dsse::write(empty)) == Reason::kSignatureInvalid);

  auto relabelled = envelope_of(stranger, spec);
  relabelled.signatures[0].keyid = key.public_key().key_id();
  CHECK(reason(dsse::write(relabelled)) == Reason::kSignatureInvalid);

  const auto other = crypto::PrivateKey::generate(crypto::Algorithm::kEcdsaP256);
  auto swapped = envelope_of(*other, spec);
  swapped.signatures[0].keyid = key.public_key().key_id();
  CHECK(reason(dsse::write(swapped)) == Reason::kSignatureInvalid);
}

TEST_CASE_FIXTURE(Fixture, "a trusted signature counts whatever its hint says and whatever stands beside it") {
  auto envelope = envelope_of(key, job::test::example());
  for (const char* keyid : {"", "../../etc/passwd", "SHA256:abc"}) {
    envelope.signatures[0].keyid = keyid;
    CHECK(verify(dsse::write(envelope)).ok());
  }
  envelope.signatures.insert(envelope.signatures.begin(), envelope_of(revoked, job::test::example()).signatures[0]);
  envelope.signatures.insert(envelope.signatures.begin(), envelope_of(stranger, job::test::example()).signatures[0]);
  CHECK(verify(dsse::write(envelope)).ok());
}

TEST_CASE_FIXTURE(Fixture, "a signature for another type is none for a jobspec") {
  CHECK(reason(dsse::write(envelope_of(key, job::test::example(), "application/vnd.in-toto+json"))) == Reason::kSignatureInvalid);
  auto retyped = envelope_of(key, job::test::example(), "application/vnd.in-toto+json");
  retyped.payload_type = job::kPayloadType;
  CHECK(reason(dsse::write(retyped)) == Reason::kSignatureInvalid);
}

TEST_CASE_FIXTURE(Fixture, "what is no envelope is refused before any key is tried") {
  const std::string good = signed_by(key, job::test::example());
  for (const std::string& bad : {std::string(), std::string("{}"), job::test::example(), good + "x", good + good, "[" + good + "]", good.substr(1),
                                 "\xEF\xBB\xBF" + good, std::string(2UL << 20U, 'a'), std::string(100000, '[')}) {
    CAPTURE(bad.substr(0, 80));
    const job::Rejected rejected = refused(bad);
    CHECK(rejected.refusal.reason == Reason::kSignatureInvalid);
    CHECK(rejected.spec_digest == crypto::digest_text(base::as_bytes(bad)));
    CHECK(rejected.signer_key_id.empty());
  }
}

TEST_CASE_FIXTURE(Fixture, "an empty ring trusts nobody") {
  ring = crypto::Keyring();
  CHECK(reason(signed_by(key, job::test::example())) == Reason::kSignerNotTrusted);
}

TEST_CASE_FIXTURE(Fixture, "the time window is exact to the second, with the clock skew on both sides") {
  const std::string text = signed_by(key, job::test::minimal());  // 10:00:00 to 11:00:00, skew 60 s
  CHECK(reason(text, at("2026-11-21T09:58:59Z")) == Reason::kNotYetValid);
  CHECK(verify(text, at("2026-11-21T09:59:00Z")).ok());
  CHECK(verify(text, at("2026-11-21T11:00:59.999Z")).ok());
  CHECK(reason(text, at("2026-11-21T11:01:00Z")) == Reason::kExpired);
  const std::string later = signed_by(key, edited(job::test::minimal(), "metadata.notBefore", "\"2026-11-21T10:45:00Z\""));
  CHECK(reason(later, at("2026-11-21T10:43:59Z")) == Reason::kNotYetValid);
  CHECK(verify(later, at("2026-11-21T10:44:00Z")).ok());
}

TEST_CASE_FIXTURE(Fixture, "a validity longer than the node allows is refused, however it is written") {
  const auto spec = [](const char* field, const char* value) { return edited(job::test::minimal(), field, value); };
  CHECK(verify(signed_by(key, spec("metadata.expiresAt", "\"2026-11-22T10:00:00Z\""))).ok());
  for (const std::string& text : {spec("metadata.expiresAt", "\"2026-11-22T10:00:01Z\""), spec("metadata.expiresAt", "\"9999-12-31T23:59:59Z\""),
                                  spec("metadata.issuedAt", "\"1970-01-01T00:00:00Z\""), spec("metadata.notBefore", "\"2026-11-20T10:00:00Z\"")}) {
    CAPTURE(text);
    const job::Rejected rejected = refused(signed_by(key, text));
    CHECK(rejected.refusal.reason == Reason::kPolicyDenied);
    CHECK(rejected.refusal.field == "metadata.expiresAt");
  }
}

TEST_CASE_FIXTURE(Fixture, "only this node's names are its audience") {
  const auto with = [this](const char* audience) { return signed_by(key, edited(job::test::minimal(), "spec.audience", audience)); };
  CHECK(verify(with("\"node-1\"")).ok());
  CHECK(verify(with("\"pool-a\"")).ok());
  CHECK(reason(with("\"node-2\"")) == Reason::kWrongAudience);
  CHECK(reason(with("\"Node-1\"")) == Reason::kWrongAudience);
  CHECK(verify(with("-")).ok());
  policy.require_audience = true;
  CHECK(reason(with("-")) == Reason::kWrongAudience);
  CHECK(verify(with("\"node-1\"")).ok());
}

TEST_CASE_FIXTURE(Fixture, "a refusal names the job only when a trusted key signed it") {
  const std::string bad = edited(job::test::example(), "spec.minTier", "9");
  const job::Rejected trusted = refused(signed_by(key, bad));
  CHECK(trusted.refusal.reason == Reason::kSchemaInvalid);
  CHECK(trusted.refusal.field == "spec.minTier");
  CHECK(trusted.signer_key_id == key.public_key().key_id());
  CHECK(trusted.uid == "0199c1f2-7b1e-7c3a-9d2e-2f4b6a8c0e11");
  CHECK(trusted.tenant == "research");
  CHECK(trusted.name == "fix-tests");
  CHECK(trusted.spec_digest == crypto::digest_text(base::as_bytes(bad)));
  const job::Rejected untrusted = refused(signed_by(stranger, bad));
  CHECK(untrusted.signer_key_id.empty());
  CHECK(untrusted.uid.empty());
  CHECK(untrusted.tenant.empty());
  CHECK(untrusted.name.empty());
  CHECK(untrusted.spec_digest == crypto::digest_text(base::as_bytes(bad)));
}

TEST_CASE_FIXTURE(Fixture, "no flipped bit of an envelope yields a job with other contents") {
  const std::string spec = job::test::minimal();
  const std::string text = signed_by(key, spec);
  for (std::size_t i = 0; i < text.size(); ++i) {
    for (const int bit : {0, 3, 5}) {
      std::string flipped = text;
      flipped[i] = static_cast<char>(flipped[i] ^ (1 << bit));
      const auto job = verify(flipped);
      if (job.ok()) {  // only the keyid hint is free
        CHECK(job->spec_digest() == crypto::digest_text(base::as_bytes(spec)));
        CHECK(job->signer_key_id() == key.public_key().key_id());
      }
    }
  }
}
