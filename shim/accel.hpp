// KVM or emulation. Not decided by looking at /dev/kvm: there are hosts where it opens and a stock guest kernel never
// starts. Decided by a real boot to the agent's handshake, once per host boot, QEMU and guest, remembered in the state
// folder.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.hpp"
#include "shim/config.hpp"
#include "shim/guest_images.hpp"

namespace cellrund::shim {

struct AccelAnswer {
  Accel accel = Accel::kTcg;  // not kAuto
  std::string why;
  std::uint64_t tsc_khz = 0;  // of the host, measured; 0 when it has no constant TSC
};

// The remembered answer; nullopt when there is none for this boot, QEMU and guest. With accel = kvm or tcg in the
// configuration there is always an answer.
base::Result<std::optional<AccelAnswer>> remembered_accel(const Config& config, const GuestImages& images);

// Boots a guest under KVM if need be; one caller at a time per state folder, the others wait for its answer. Takes up to
// `probe_timeout`. Runs its own event loop: for the `probe` command only.
base::Result<AccelAnswer> probe_accel(const Config& config);

}  // namespace cellrund::shim
