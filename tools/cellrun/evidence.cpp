// evidence show, verify, export. verify needs neither a daemon nor a configuration.
#include "evidence/verify.hpp"

#include "base/file.hpp"
#include "crypto/keys.hpp"
#include "evidence/statement.hpp"
#include "evidence/summary.hpp"
#include "groups.hpp"

namespace cellrund::cli {
namespace {

constexpr std::size_t kMaxEnvelopeBytes = std::size_t{4} << 20U;
constexpr std::size_t kMaxKeyBytes = 4096;

base::Result<crypto::PublicKey, Failed> node_key(const Context& context) {
  std::string path;
  if (std::optional<std::string> given = context.arguments().value("key")) {
    path = std::move(*given);
  } else {
    path = CR_TRY(context.load_config()).config.paths.node_pub;
  }
  const base::Result<std::string> pem = base::read_file(path, kMaxKeyBytes);
  if (!pem) {
    return failed(pem.error(), "--key FILE names the node's public key");
  }
  base::Result<crypto::PublicKey> key = crypto::PublicKey::from_pem(*pem);
  if (!key) {
    return failed(std::move(key).error().context("read " + path));
  }
  return std::move(*key);
}

base::Result<std::string, Failed> fetch(const Context& context) {
  api::Client client = CR_TRY(context.connect());
  const std::string uid = CR_TRY(resolve_job(client, context.arguments().positional[0]));
  return CR_TRY(ask<api::EvidenceEnvelope>(client, api::GetEvidence{uid})).envelope;
}

// A record that does not verify is a finding, not a failure of ours.
Failed not_verified(const evidence::VerifyFailure& failure, std::string_view what) {
  Failed out;
  out.failure.code = base::Errc::kDataLoss;
  out.failure.message = std::string(what) + ": " + std::string(to_string(failure.fault)) + ": " + failure.message;
  out.failure.hint = failure.fault == evidence::Fault::kWrongKey ? "--key FILE names the public key of the node that sealed it"
                                                                  : "do not rely on this record";
  out.exit_code = kExitFound;
  return out;
}

// Whatever keeps us from looking is "could not tell".
Failed untold(Failed cause) {
  if (cause.exit_code != kExitUsage) {
    cause.exit_code = kExitUntold;
  }
  return cause;
}

int show(const Context& context, const evidence::Record& record) {
  if (context.style().json()) {
    return print(context.format() == Format::kJson ? base::json::write_pretty(record.statement)
                                                   : base::json::write(record.statement) + "\n") ? 0 : kExitOurs;
  }
  return print(evidence::summary(record)) ? 0 : kExitOurs;
}

}  // namespace

Outcome evidence_show(Context& context) {
  const std::string envelope = CR_TRY(fetch(context));
  const crypto::PublicKey key = CR_TRY(node_key(context));
  const base::Result<evidence::Record, evidence::VerifyFailure> record =
      evidence::verify(base::as_bytes(envelope), key, context.arguments().value("spec-digest").value_or(""));
  if (!record) {
    return not_verified(record.error(), "evidence of " + printable(context.arguments().positional[0]));
  }
  return show(context, *record);
}

Outcome evidence_verify(Context& context) {
  const std::string& path = context.arguments().positional[0];
  base::Result<crypto::PublicKey, Failed> key = node_key(context);
  if (!key) {
    return untold(std::move(key).error());
  }
  const base::Result<std::string, Failed> envelope = read_input(path, kMaxEnvelopeBytes);
  if (!envelope) {
    return untold(Failed{envelope.error()});
  }
  const base::Result<evidence::Record, evidence::VerifyFailure> record =
      evidence::verify(base::as_bytes(*envelope), *key, context.arguments().value("spec-digest").value_or(""));
  if (!record) {
    return not_verified(record.error(), "evidence " + printable(path));
  }
  if (context.style().json()) {
    return print(object_text(context.format(), {{"ok", true}, {"digest", record->digest}, {"keyId", record->key_id},
                                                {"specDigest", record->spec_digest}})) ? 0 : kExitOurs;
  }
  return print("ok: " + record->digest + " signed by node key " + record->key_id + "\n") ? 0 : kExitOurs;
}

Outcome evidence_export(Context& context) {
  const std::string envelope = CR_TRY(fetch(context));
  return print(envelope + "\n") ? 0 : kExitOurs;
}

}  // namespace cellrund::cli
