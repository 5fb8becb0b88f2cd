// Offline check of a sealed record: needs the record and the node's public key, nothing else.
#pragma once

#include <string>
#include <string_view>

#include "base/file.hpp"
#include "base/json.hpp"
#include "base/result.hpp"
#include "crypto/keys.hpp"

namespace cellrund::evidence {

enum class Fault {
  kMalformed,       // no DSSE envelope as this project writes it, or no statement inside
  kWrongType,       // signed, but not as an in-toto statement
  kWrongKey,        // names another key than the one given
  kSignature,       // the signature does not verify
  kUnknownVersion,  // a statement or predicate of an unknown kind or major version: refused, never guessed at
  kSubject,         // subject and predicate disagree, or it is not the record of the expected jobspec
};
[[nodiscard]] std::string_view to_string(Fault fault) noexcept;  // "malformed", "wrong-type", …

struct VerifyFailure {
  Fault fault = Fault::kMalformed;
  std::string message;
};

// A record whose signature holds. Its strings are the node's word, but may quote what a guest or a peer sent: escape
// them before a terminal sees them (summary() does).
struct Record {
  base::json::Value statement;
  std::string digest;       // of the envelope
  std::string key_id;
  std::string spec_digest;  // of the first subject; empty for a record that seals a count of refusals
  [[nodiscard]] const base::json::Value& predicate() const noexcept;
};

// `expected_spec_digest` empty: any. One trailing newline is allowed; any other byte that differs from what seal() wrote
// fails.
base::Result<Record, VerifyFailure> verify(base::BytesView envelope, const crypto::PublicKey& key,
                                           std::string_view expected_spec_digest = {});

}  // namespace cellrund::evidence
