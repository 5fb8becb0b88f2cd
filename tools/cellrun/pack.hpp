// A job's files as one archive, named by its digest: what `submit --task` and `--workspace` hand to the node.
#pragma once

#include <cstdint>
#include <string>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace cellrund::cli {

struct PackedFiles {
  base::UniqueFd archive;  // for reading by pread(2)
  std::uint64_t bytes = 0;
  std::string digest;  // "sha256:<64 hex>"
};

// A folder is packed: regular files, folders and symbolic links, sorted by name, with their permission bits and nothing else
// of their metadata, so that the same tree gives the same bytes. Anything else in it is kInvalidArgument, and so are names
// that are no UTF-8; a hard link becomes a file of its own. A regular file must be a tar archive without compression and is
// taken as it is. Symbolic links are never followed, but for `path` itself. The error names path and cause.
base::Result<PackedFiles> pack_files(const std::string& path);

}  // namespace cellrund::cli
