// One containerd process, by pidfd. It may be our child or one that an earlier keeper left.
#pragma once

#include <string>
#include <vector>

#include "base/clock.hpp"
#include "base/process.hpp"
#include "base/result.hpp"
#include "daemon/keeper/config.hpp"

namespace cellrund::daemon::keeper {

[[nodiscard]] std::string containerd_dir(const std::string& run_dir);          // <run>/containerd: config.toml and log
[[nodiscard]] std::string containerd_config_path(const std::string& run_dir);  // what marks a containerd as this node's
[[nodiscard]] std::string containerd_log_path(const std::string& run_dir);

// Processes of our own uid whose command line is exactly "PROGRAM --config <that path>". More than one is possible
// after a crash of the keeper: the later ones hang on the first one's database lock and never serve.
base::Result<std::vector<base::PidFd>> find_containerds(const std::string& run_dir);

// Writes the configuration and starts it, in a session of its own, with the shim's folder first in PATH. It does not
// serve yet on return.
base::Result<base::PidFd> start_containerd(const Config& config);

// TERM, and KILL when it is still there at the deadline's end. Reaps it when it is our child. Success: it is gone.
base::Status stop_containerd(const base::PidFd& process, base::Deadline polite);
// KILL at once: for one that does not serve.
base::Status kill_containerd(const base::PidFd& process);

}  // namespace cellrund::daemon::keeper
