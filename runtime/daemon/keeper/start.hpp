// cellrund's side of the keeper: start it, or find the one that runs already.
#pragma once

#include <string>

#include "base/clock.hpp"
#include "base/process.hpp"
#include "base/result.hpp"
#include "daemon/keeper/config.hpp"
#include "daemon/keeper/state.hpp"

namespace cellrund::daemon::keeper {

struct Kept {
  base::PidFd keeper;          // readable when the keeper died: call ensure_keeper again
  bool started = false;        // our child, to be reaped; otherwise an earlier cellrund's
  ContainerdState containerd;  // as published when it answered
};

// To be called before cellrund confines itself: a Landlock domain or seccomp filter would reach containerd.
// On success containerd's socket answers. The keeper is in a session of its own and outlives us.
// kFailedPrecondition when a keeper of another configuration holds the run folder: stop that one first.
base::Result<Kept> ensure_keeper(const std::string& keeper_binary, const Config& config, base::Deadline deadline);

// Ends keeper and containerd and waits for both. Success when none runs.
base::Status stop_keeper(const std::string& run_dir, base::Deadline deadline);

}  // namespace cellrund::daemon::keeper
