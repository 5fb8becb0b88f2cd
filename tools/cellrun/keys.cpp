// keygen, sign, lint, schema: what a submitter does before there is a node.
#include <fcntl.h>
#include <unistd.h>

#include "base/file.hpp"
#include "crypto/keys.hpp"
#include "crypto/random.hpp"
#include "groups.hpp"
#include "inputs.hpp"
#include "job/parse.hpp"
#include "job/schema.hpp"

namespace cellrund::cli {
namespace {

using base::Errc;
using base::Error;

// Creates a file that must not exist yet; durable.
base::Status write_new(const std::string& path, std::string_view content, unsigned mode) {
  const base::UniqueFd fd = CR_TRY(base::open_file(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode));
  CR_CHECK(base::write_all(fd.get(), base::as_bytes(content)).context("write " + path));
  if (::fsync(fd.get()) != 0) {
    return Error::from_errno("fsync " + path);
  }
  return base::ok();
}

}  // namespace

base::Result<model::JobSpec, Failed> checked_spec(const std::string& text) {
  base::Result<model::JobSpec, model::Refusal> spec = job::parse_spec(text);
  if (!spec) {
    return failed(api::failure_from(spec.error(), {}));
  }
  return std::move(*spec);
}

Outcome keygen(Context& context) {
  const Arguments& arguments = context.arguments();
  if (arguments.has("uuid")) {
    if (!arguments.positional.empty()) {
      return misuse("keygen: --uuid writes no files", "cellrun keygen --uuid");
    }
    const base::Result<std::string> uuid = crypto::uuid_v7(base::WallTime::now());
    return uuid ? Outcome(print(*uuid + "\n") ? 0 : kExitOurs) : Outcome(failed(uuid.error()));
  }
  if (arguments.positional.empty()) {
    return misuse("keygen: an argument is missing", "cellrun keygen NAME writes NAME.key and NAME.pub");
  }
  const std::string name = arguments.value("algorithm").value_or("ed25519");
  if (name != "ed25519" && name != "ecdsa-p256") {
    return misuse("keygen: algorithm " + printable(name) + " is unknown", "ed25519 or ecdsa-p256");
  }
  const std::string secret_path = arguments.positional[0] + ".key";
  const std::string public_path = arguments.positional[0] + ".pub";
  for (const std::string& path : {secret_path, public_path}) {
    if (base::exists(path)) {
      return failed(Error(Errc::kAlreadyExists, "keygen: " + path + ": exists already"),
                    "choose another name: a key that is overwritten is lost");
    }
  }
  const base::Result<crypto::PrivateKey> key =
      crypto::PrivateKey::generate(name == "ed25519" ? crypto::Algorithm::kEd25519 : crypto::Algorithm::kEcdsaP256);
  if (!key) {
    return failed(key.error());
  }
  const base::Result<std::string> pem = key->pem();
  if (!pem) {
    return failed(pem.error());
  }
  base::Status written = write_new(secret_path, *pem, 0600);
  if (written) {
    written = write_new(public_path, key->public_key().pem(), 0644);
  }
  if (!written) {
    return failed(std::move(written).error().context("keygen"));
  }
  const std::string& id = key->public_key().key_id();
  if (context.style().json()) {
    return print(object_text(context.format(), {{"key", secret_path}, {"pub", public_path}, {"keyId", id}})) ? 0 : kExitOurs;
  }
  return print(secret_path + "\n" + public_path + "\nkey id " + id + "\n") ? 0 : kExitOurs;
}

Outcome sign(Context& context) {
  const Arguments& arguments = context.arguments();
  const std::optional<std::string> key_path = arguments.value("key");
  if (!key_path) {
    return misuse("sign: --key is missing", "cellrun sign JOBSPEC --key KEY; cellrun keygen makes one");
  }
  const Inputs inputs = CR_TRY(pack_inputs(context));
  const std::string text = CR_TRY(with_inputs(CR_TRY(read_input(arguments.positional[0], job::kMaxSpecBytes)), inputs, "sign"));
  (void)CR_TRY(checked_spec(text));
  const base::Result<crypto::PrivateKey> key = crypto::PrivateKey::load(*key_path);
  if (!key) {
    return failed(key.error(), "the key must be a PKCS#8 PEM file that only you can read");
  }
  const base::Result<std::string> envelope = job::sign_spec(text, *key);
  if (!envelope) {
    return failed(envelope.error());
  }
  if (const std::optional<std::string> out = arguments.value("out")) {
    const base::Status written = base::write_file_atomic(*out, *envelope + "\n", 0644);
    return written ? Outcome(0) : Outcome(failed(written.error()));
  }
  return print(*envelope + "\n") ? 0 : kExitOurs;
}

Outcome lint(Context& context) {
  const std::string text = CR_TRY(read_input(context.arguments().positional[0], job::kMaxSpecBytes));
  const model::JobSpec spec = CR_TRY(checked_spec(text));
  if (context.style().json()) {
    return print(object_text(context.format(), {{"ok", true}, {"uid", spec.metadata.uid}, {"name", spec.metadata.name}}))
               ? 0 : kExitOurs;
  }
  return print("ok: " + spec.metadata.tenant + "/" + spec.metadata.name + " " + spec.metadata.uid + "\n") ? 0 : kExitOurs;
}

Outcome schema(Context& /*context*/) { return print(job::json_schema()) ? 0 : kExitOurs; }

}  // namespace cellrund::cli
