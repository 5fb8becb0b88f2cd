// The files that make a machine: kernel and initrd, copied into sealed memory so that what was hashed is what runs, and
// QEMU itself, by path and identity. Digests are computed once per file version and kept in the state folder, keyed by
// (dev, ino, size, mtime, ctime).
#pragma once

#include <string>

#include "base/fd.hpp"
#include "base/file.hpp"
#include "base/result.hpp"
#include "shim/config.hpp"

namespace cellrund::shim {

struct GuestImages {
  base::UniqueFd kernel;  // sealed memfds
  base::UniqueFd initrd;
  std::string kernel_digest;  // "sha256:…"
  std::string initrd_digest;
  std::string qemu_path;  // without symbolic links
  std::string qemu_digest;
  base::FileId qemu_id;  // what /proc/PID/exe must be
};

base::Result<GuestImages> load_guest_images(const Config& config);

}  // namespace cellrund::shim
