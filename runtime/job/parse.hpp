// The strict jobspec parser: signed bytes → JobSpec with every default filled in, or the first thing that is wrong.
// Pure; no clock, no host state. Field names and rules: docs/SPEC.md, section "Jobspec"; the table is job/fields.hpp.
#pragma once

#include <string>
#include <string_view>

#include "base/result.hpp"
#include "crypto/keys.hpp"
#include "model/job_spec.hpp"
#include "model/outcome.hpp"

namespace cellrund::job {

inline constexpr std::string_view kPayloadType = "application/vnd.cellrun.jobspec.v1+json";
inline constexpr std::size_t kMaxSpecBytes = 256UL * 1024;

// What could be read of a spec before its first fault. Each is empty unless it is valid by its own rule.
struct Identity {
  std::string uid, tenant, name;
};

// Refusals: SchemaInvalid, UnsupportedField, ImageNotPinned. `identity`, when given, is filled as far as parsing came.
base::Result<model::JobSpec, model::Refusal> parse_spec(std::string_view text, Identity* identity = nullptr);

// The DSSE envelope of exactly these bytes. Does not look at them: parse_spec() first, to sign only what a node accepts.
base::Result<std::string> sign_spec(std::string_view payload, const crypto::PrivateKey& key);

}  // namespace cellrund::job
