// What the shim writes into a cell's bundle for the daemon (shim/, "state files"). The shim is ours and runs as root, yet
// its reports quote the guest: strings are bounded and escaped where they are shown.
#pragma once

#include <optional>
#include <string>

#include "base/clock.hpp"
#include "base/process.hpp"
#include "base/result.hpp"
#include "cell/lane.hpp"
#include "model/evidence.hpp"

namespace cellrund::cell {

// cellrun-vm.json: written when START was sent.
struct ShimStarted {
  model::LaneFacts lane;
  base::ProcessId vmm;
  base::ProcessId shim;
  base::BootTime started;
};
base::Result<ShimStarted> read_shim_started(const std::string& bundle);

// cellrun-vmm.pid: written as soon as the VMM exists.
base::Result<base::ProcessId> read_vmm_pid(const std::string& bundle);

// shim.pid: the process that serves this bundle's task.
base::Result<pid_t> read_shim_pid(const std::string& bundle);

// cellrun-exit.json: written before the exit is published. kNotFound until then. `started` turns the shim's boot times
// into the ladder of the record; nullopt when START was never sent.
base::Result<LaneEnd> read_shim_exit(const std::string& bundle, std::optional<base::BootTime> started);

}  // namespace cellrund::cell
