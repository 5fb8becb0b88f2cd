// Bound Unix sockets of one network namespace, by our own sock_diag(7) dump. Not /proc/net/unix: a name may hold newlines
// there and so forge whole lines. Internal to residue.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "base/file.hpp"
#include "base/result.hpp"

namespace cellrund::residue {

struct UnixSocket {
  std::string name;                  // '@' stands for the leading NUL of an abstract one
  std::uint32_t inode = 0;           // of sockfs
  std::optional<std::uint32_t> uid;  // of whoever made it
  std::optional<base::FileId> file;  // what bind(2) made in the file system, as it was then
};

// Every socket with a name in the namespace of the calling thread. Needs unix_diag (CONFIG_UNIX_DIAG) in the kernel.
base::Result<std::vector<UnixSocket>> list_unix_sockets(base::Deadline deadline);

}  // namespace cellrund::residue
