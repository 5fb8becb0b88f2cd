// The sealed record of a submission: an in-toto Statement v1 (github.com/in-toto/attestation, spec/v1/statement.md) in a
// DSSE envelope signed with the node key. Fields: docs/EVIDENCE.md. Pure functions; any thread.
#pragma once

#include <string>
#include <string_view>

#include "base/file.hpp"
#include "base/json.hpp"
#include "base/result.hpp"
#include "crypto/keys.hpp"
#include "model/evidence.hpp"

namespace cellrund::evidence {

inline constexpr std::string_view kPayloadType = "application/vnd.in-toto+json";
inline constexpr std::string_view kStatementType = "https://in-toto.io/Statement/v1";
inline constexpr std::string_view kPredicateType = "https://cellrun.dev/attestation/job/v1";
inline constexpr std::size_t kMaxStatementBytes = 2UL * 1024 * 1024;

struct Sealed {
  std::string envelope;  // DSSE JSON, compact, no trailing newline
  std::string digest;    // "sha256:…" of exactly these bytes
};

// The statement before it is signed. A fact that was not produced is absent. Lists and strings are bounded, and what a
// bound cut away is named in `gaps` and makes the record partial.
[[nodiscard]] base::json::Value statement(const model::Evidence& facts);

base::Result<Sealed> seal(const model::Evidence& facts, const crypto::PrivateKey& key);

}  // namespace cellrund::evidence
