// What the keeper tells about itself and about the containerd that it keeps, in two small files of the run folder.
// Written by the keeper alone, atomically; read by cellrund. Both name processes by pid and start time, so a stale file
// can never be taken for a live process.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/process.hpp"
#include "base/result.hpp"

namespace cellrund::daemon::keeper {

struct ContainerdState {
  base::ProcessId process;
  std::string socket;
  std::uint64_t generation = 0;  // grows by one with every start; an adopted containerd keeps its number
  friend bool operator==(const ContainerdState&, const ContainerdState&) = default;
};

struct KeeperState {
  base::ProcessId process;
  std::vector<std::string> arguments;  // to_arguments(Config): two keepers serve the same exactly if these are equal
};

[[nodiscard]] std::string containerd_state_path(const std::string& run_dir);  // <run>/containerd.json
[[nodiscard]] std::string lock_path(const std::string& run_dir);  // <run>/keeper.lock: flock and KeeperState

// kNotFound when none was published yet; kDataLoss for a malformed file. Does not say that the process lives: is_alive
// does.
base::Result<ContainerdState> read_containerd_state(const std::string& run_dir);
base::Result<KeeperState> read_keeper_state(const std::string& run_dir);

// `where` stands in front of an error.
base::Result<ContainerdState> decode_containerd_state(std::string_view text, const std::string& where);
[[nodiscard]] std::string encode(const ContainerdState& state);
[[nodiscard]] std::string encode(const KeeperState& state);

}  // namespace cellrund::daemon::keeper
