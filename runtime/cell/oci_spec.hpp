// The OCI runtime spec of a cell in the microvm lane (opencontainers/runtime-spec v1.0.2, config.md).
// A closed set: nothing of a jobspec's labels or annotations, or of the image's labels, ever reaches it.
#pragma once

#include <string>

#include "cell/lane.hpp"

namespace cellrund::cell {

// Annotation keys that our shim reads.
inline constexpr const char* kAnnotationUid = "dev.cellrun.uid";
inline constexpr const char* kAnnotationDeadline = "dev.cellrun.active-deadline-ms";
inline constexpr const char* kAnnotationGrace = "dev.cellrun.grace-ms";
inline constexpr const char* kAnnotationStopSignal = "dev.cellrun.stop-signal";
inline constexpr const char* kAnnotationVmmUid = "dev.cellrun.vmm-uid";
inline constexpr const char* kAnnotationNetwork = "dev.cellrun.network";
inline constexpr const char* kAnnotationOutputs = "dev.cellrun.outputs";

// The mount type by which our shim takes the image with the job's files.
inline constexpr const char* kInputsMountType = "cellrun.inputs";
inline constexpr const char* kAnnotationSecrets = "dev.cellrun.secrets";
// Below the cell's folder: where its shim fetches the job's secrets.
inline constexpr const char* kSecretsSocket = "/secrets";

// JSON text. `vmm_uid` is the host uid that the cell's VMM runs as.
[[nodiscard]] std::string oci_spec(const CellPlan& plan, std::uint32_t vmm_uid);

}  // namespace cellrund::cell
