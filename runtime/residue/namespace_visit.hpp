// A look into another network namespace from a throw-away thread: the thread enters, does the one job and ends with its
// namespace, so that no thread that lives on is ever in a foreign one. Source: setns(2), netlink(7). Internal to residue.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace cellrund::residue {

// Runs `job` on a thread inside the namespace and waits for it. The job must not throw.
base::Status in_network_namespace(int netns_fd, const std::function<void()>& job);

// SO_NETNS_COOKIE of a namespace (kernel 5.14): never reused in one boot, unlike its inode number.
base::Result<std::uint64_t> network_cookie(int netns_fd);

// Whether a namespace belongs to our user namespace or one above it, so that only root can have made what is in it. True
// where the kernel does not tell.
bool owned_by_root(int namespace_fd);

enum class Existence { kGone, kExists, kNotTold };

// Whether that network namespace still exists in the kernel, whoever holds it: opens it by its file handle (kernel 6.18,
// fs/nsfs.c struct nsfs_file_handle; the id in it is the cookie). kNotTold on older kernels.
Existence network_namespace_existence(std::uint64_t inode, std::uint64_t cookie);

}  // namespace cellrund::residue
