// What the keeper is told, on its command line: cellrund's configuration never reaches it as a file, so that the little
// root process parses nothing but its own arguments.
#pragma once

#include <string>
#include <vector>

#include "base/result.hpp"

namespace cellrund::daemon::keeper {

struct Config {
  std::string run_dir;                             // --run-dir: lock, state, containerd's config and log
  std::string root;                                // --root: containerd's persistent data
  std::string state;                               // --state: containerd's bundles; not persistent
  std::string socket;                              // --socket
  std::string containerd = "/usr/bin/containerd";  // --containerd
  std::string shim_dir;                            // --shim-dir: first in containerd's PATH
  std::string shim_config;                         // --shim-config: CELLRUN_SHIM_CONFIG of every shim; may be empty
};

// kInvalidArgument for a path that is empty where it is required, not absolute, or has characters that would need
// quoting in containerd's configuration, and for a socket path longer than sockaddr_un holds.
base::Status validate(const Config& config);

// The command line that stands for it, without the program's name.
[[nodiscard]] std::vector<std::string> to_arguments(const Config& config);

// The second socket of containerd, on which shims report events.
[[nodiscard]] std::string ttrpc_socket(const Config& config);

// containerd's config.toml, version 2 (containerd 1.5 to 2.x).
[[nodiscard]] std::string containerd_toml(const Config& config);

}  // namespace cellrund::daemon::keeper
