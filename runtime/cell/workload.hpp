// What cell-init is told to run, as far as it is the same in every lane that speaks the wire protocol itself.
#pragma once

#include "cell/lane.hpp"
#include "shim/wire/secrets.hpp"
#include "shim/wire/workload.hpp"

namespace cellrund::cell {

// The tmpfs for secrets: room for as many and as long ones as there may be, whatever these are, and nobody's to write in but
// cell-init's.
inline constexpr std::uint64_t kSecretsFolderBytes = 2ULL << 20U;
static_assert(kSecretsFolderBytes > wire::kMaxSecrets * (wire::kMaxSecretBytes + 4096));
inline constexpr std::uint32_t kSecretsFolderMode = 0555;

[[nodiscard]] wire::Workload base_workload(const CellPlan& plan);

// "TERM@12.000": seconds after START, the form of evidence's deadline ladder.
[[nodiscard]] std::string ladder_step(std::string_view what, base::BootTime started, base::BootTime at);

}  // namespace cellrund::cell
