// The inside of a box: what a helper program does to itself before it reads a hostile byte. Single-threaded helpers
// only. Each step fails closed: a helper that cannot confine itself must end.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.hpp"

namespace cellrund::host {

struct RootPlan {
  std::uint64_t tmpfs_bytes = 0;
  std::uint64_t tmpfs_inodes = 0;
  std::vector<std::string> read_only;  // host directories that appear at the same path, read-only, nosuid, nodev
  // A detached mount (open_tree(2)) that appears at the given path of a file.
  struct FileMount {
    int mount_fd = -1;
    std::string path;
  };
  std::vector<FileMount> files;
};

// Replaces the root by a fresh tmpfs with only what the plan names; nothing of the old tree can be reached afterwards.
base::Status enter_private_root(const RootPlan& plan);

struct BoxLimits {
  std::uint64_t address_space_bytes = 0;
  std::uint64_t cpu_seconds = 0;
  std::uint64_t open_files = 0;
  std::uint64_t file_bytes = 0;
};
base::Status set_limits(const BoxLimits& limits);

// Drops every capability but `keep` from all sets (capabilities(7)), the bounding set included, and sets no_new_privs. One
// that is kept and not held stays not held. All of it is the calling thread's alone, and inherited by what it makes: call
// it before the first thread.
base::Status keep_capabilities(std::span<const int> keep);

// Which system calls a helper may make from now on.
enum class SeccompProfile {
  kUnpacker,  // file operations and the descriptors it has; no exec, no fork, no socket. Anything else kills it
  kResolver,  // IPv4 sockets, poll and the descriptors it has; no exec, no fork, no file. Anything else kills it
  kCollector, // the descriptors it has, and one accept; no file is opened, nothing is made. Anything else kills it
  kMkfs,      // what mkfs.erofs needs, its exec included. Anything else is ENOSYS
};
base::Status apply_seccomp(SeccompProfile profile);

}  // namespace cellrund::host
