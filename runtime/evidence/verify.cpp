#include "evidence/verify.hpp"

#include <utility>

#include "crypto/digest.hpp"
#include "crypto/dsse.hpp"
#include "evidence/outputs_manifest.hpp"
#include "evidence/statement.hpp"

namespace cellrund::evidence {

namespace dsse = crypto::dsse;
namespace json = base::json;

namespace {

VerifyFailure fail(Fault fault, std::string message) { return {fault, std::move(message)}; }

const std::string* text_at(const json::Value& value, std::initializer_list<std::string_view> path) {
  const json::Value* at = &value;
  for (const std::string_view key : path) {
    at = at->find(key);
    if (at == nullptr) {
      return nullptr;
    }
  }
  return at->as_string();
}

// ".../job/v1" and its minor versions ".../job/v1.<n>".
bool is_known_predicate(std::string_view type) {
  if (!type.starts_with(kPredicateType)) {
    return false;
  }
  type.remove_prefix(kPredicateType.size());
  return type.empty() || (type.size() > 1 && type.front() == '.' && type.find_first_not_of("0123456789", 1) == std::string_view::npos);
}

struct Subject {
  std::string name, digest;
};

base::Result<Subject, VerifyFailure> first_subject(const json::Value& statement) {
  const json::Value* list = statement.find("subject");
  const json::Array* subjects = list == nullptr ? nullptr : list->as_array();
  if (subjects == nullptr || subjects->empty()) {
    return fail(Fault::kMalformed, "the statement has no subject");
  }
  const std::string* name = text_at(subjects->front(), {"name"});
  const std::string* digest = text_at(subjects->front(), {"digest", "sha256"});
  if (name == nullptr || digest == nullptr || !crypto::is_digest_text("sha256:" + *digest)) {
    return fail(Fault::kMalformed, "the first subject has no name or no sha256 digest");
  }
  return Subject{*name, "sha256:" + *digest};
}

// The second subject is the manifest of the outputs, and the list in the record is that manifest unless the record says
// that it was too long for it.
base::Status check_outputs(const json::Value& statement, const json::Value& predicate) {
  const auto disagree = [](const char* why) { return base::Error(base::Errc::kDataLoss, why); };
  const json::Array& subjects = *statement.find("subject")->as_array();  // first_subject() found it
  const json::Value* outputs = predicate.find("outputs");
  const json::Value* manifest = predicate.find("outputsManifest");
  if (subjects.size() != (manifest == nullptr ? 1U : 2U) || (manifest == nullptr) != (outputs == nullptr)) {
    return disagree("outputs and subjects do not belong together");
  }
  if (manifest == nullptr) {
    return base::ok();
  }
  const std::string* name = text_at(subjects[1], {"name"});
  const std::string* digest = text_at(subjects[1], {"digest", "sha256"});
  const std::string* said = text_at(*manifest, {"sha256"});
  const json::Value* files = manifest->find("files");
  if (name == nullptr || *name != kManifestSubject || digest == nullptr || said == nullptr || *digest != *said ||
      files == nullptr || files->as_int() == nullptr || outputs->as_array() == nullptr) {
    return disagree("the second subject is not the manifest of the outputs");
  }
  const json::Array& list = *outputs->as_array();
  if (static_cast<std::int64_t>(list.size()) > *files->as_int()) {
    return disagree("more outputs than the manifest has");
  }
  const bool is_cut = static_cast<std::int64_t>(list.size()) < *files->as_int();
  const std::string text = json::write(json::Object{{"outputs", list}});
  if (is_cut ? text_at(predicate, {"partialBecause"}) == nullptr : crypto::hex(crypto::sha256(base::as_bytes(text))) != *said) {
    return disagree("the outputs are not those of the manifest");
  }
  return base::ok();
}

}  // namespace

std::string_view to_string(Fault fault) noexcept {
  switch (fault) {
    case Fault::kMalformed: return "malformed";
    case Fault::kWrongType: return "wrong-type";
    case Fault::kWrongKey: return "wrong-key";
    case Fault::kSignature: return "signature";
    case Fault::kUnknownVersion: return "unknown-version";
    case Fault::kSubject: return "subject";
  }
  return "";
}

const json::Value& Record::predicate() const noexcept {
  const json::Value* found = statement.find("predicate");
  CR_ASSERT(found != nullptr);  // verify() checked it
  return *found;
}

base::Result<Record, VerifyFailure> verify(base::BytesView envelope, const crypto::PublicKey& key, std::string_view expected_spec_digest) {
  if (!envelope.empty() && envelope.back() == '\n') {
    envelope = envelope.first(envelope.size() - 1);
  }
  const auto parsed = dsse::parse(envelope, {.max_payload_bytes = kMaxStatementBytes, .max_signatures = 1});
  if (!parsed.ok()) {
    return fail(Fault::kMalformed, parsed.error().message());
  }
  // One spelling only: no byte outside the signature's reach can differ unnoticed.
  if (parsed->signatures.size() != 1 || dsse::write(*parsed) != base::as_text(envelope)) {
    return fail(Fault::kMalformed, "the envelope is not byte for byte as a node writes it");
  }
  if (parsed->payload_type != kPayloadType) {
    return fail(Fault::kWrongType, "the payloadType is not " + std::string(kPayloadType));
  }
  if (parsed->signatures.front().keyid != key.key_id()) {
    return fail(Fault::kWrongKey, "the envelope names another key than " + key.key_id());
  }
  if (!dsse::verifies(*parsed, key)) {
    return fail(Fault::kSignature, "the signature does not verify under key " + key.key_id());
  }

  auto statement = json::parse(base::as_text(parsed->payload), {.max_bytes = kMaxStatementBytes, .max_depth = 32, .max_members = 1024});
  if (!statement.ok()) {
    return fail(Fault::kMalformed, "the statement is not strict JSON: " + statement.error().message());
  }
  const std::string* type = text_at(*statement, {"_type"});
  const std::string* predicate_type = text_at(*statement, {"predicateType"});
  if (type == nullptr || predicate_type == nullptr) {
    return fail(Fault::kMalformed, "the statement has no _type or no predicateType");
  }
  if (*type != kStatementType || !is_known_predicate(*predicate_type)) {
    return fail(Fault::kUnknownVersion, "a statement or predicate of a kind or version that this program does not know");
  }
  const json::Value* predicate = statement->find("predicate");
  if (predicate == nullptr || predicate->as_object() == nullptr) {
    return fail(Fault::kMalformed, "the statement has no predicate");
  }
  const std::string* key_id = text_at(*predicate, {"node", "keyId"});
  if (key_id == nullptr || *key_id != key.key_id()) {
    return fail(Fault::kWrongKey, "the record says that another key signed it");
  }

  const Subject subject = CR_TRY(first_subject(*statement));
  const std::string* spec_digest = text_at(*predicate, {"request", "specDigest"});
  const bool is_own_subject = spec_digest == nullptr && subject.name == "predicate";
  if (is_own_subject ? subject.digest != crypto::digest_text(base::as_bytes(json::write(*predicate)))
                     : subject.name != "jobspec" || spec_digest == nullptr || *spec_digest != subject.digest) {
    return fail(Fault::kSubject, "the subject is not what the predicate speaks of");
  }
  if (const auto outputs = check_outputs(*statement, *predicate); !outputs.ok()) {
    return fail(Fault::kSubject, outputs.error().message());
  }
  if (!expected_spec_digest.empty() && (is_own_subject || *spec_digest != expected_spec_digest)) {
    return fail(Fault::kSubject, "the record is of another jobspec");
  }
  return Record{std::move(*statement), crypto::digest_text(envelope), key.key_id(), is_own_subject ? std::string() : subject.digest};
}

}  // namespace cellrund::evidence
