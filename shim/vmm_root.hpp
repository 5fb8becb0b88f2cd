// The root file system of a VMM: a small read-only tmpfs with the host's program folders bound into it, a private /dev
// and a /proc of its own pid namespace. No home, no /etc but the loader's cache, no /run, no /sys, no other disk.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.hpp"

namespace cellrund::shim {

// In a single-threaded child with a mount namespace of its own. Afterwards the old root cannot be reached.
// `program`: the absolute path that will be run; its top-level folder is bound too (a QEMU in /opt or /nix).
// `uid` owns /dev/kvm when `kvm`.
base::Status enter_vmm_root(const std::string& program, bool kvm, std::uint32_t uid);

}  // namespace cellrund::shim
