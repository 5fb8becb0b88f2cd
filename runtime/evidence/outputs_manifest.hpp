// The manifest of a job's outputs: its digest is a subject of the sealed record, beside the jobspec's.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/json.hpp"
#include "model/evidence.hpp"

namespace cellrund::evidence {

inline constexpr std::string_view kManifestSubject = "outputs-manifest";

// {"path","size","sha256"}, the form of one output in manifest and record.
[[nodiscard]] base::json::Object output_entry(const model::OutputFile& file);
// Compact JSON: {"outputs":[{"path":…,"size":…,"sha256":"<hex>"},…]}, in the order in which the cell handed them over.
[[nodiscard]] std::string outputs_manifest(const std::vector<model::OutputFile>& files);
// "sha256:…" over exactly these bytes.
[[nodiscard]] std::string outputs_manifest_digest(const std::vector<model::OutputFile>& files);

}  // namespace cellrund::evidence
