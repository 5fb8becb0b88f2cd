// From verified blobs to one EROFS file, by cellrun-unpack in a box. Internal to the preparer: root file systems and inputs
// are made by the same steps.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/clock.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"
#include "image/preparer.hpp"
#include "image/rootfs_cache.hpp"
#include "image/unpack/request.hpp"

namespace cellrund::image {

// What a failure of a step is called in a job's outcome.
struct StepReasons {
  model::Reason invalid;   // the bytes are malformed, hostile or too many
  model::Reason mismatch;  // they do not have their digest
  model::Reason host;      // this host failed
};

// Error → ImageFailure: a deadline is StartDeadlineExceeded whatever was going on, a missing object ImageNotFound,
// anything else `otherwise` (a stopped build too: whoever stopped it knows why).
ImageFailure image_failure(const base::Error& error, model::Reason otherwise);

// The same step, its failure put into the words of a job's outcome.
template <typename T>
base::Result<T, ImageFailure> or_reason(base::Result<T> result, model::Reason reason) {
  if (result.ok()) {
    return std::move(result).value();
  }
  return image_failure(result.error(), reason);
}

struct ErofsJob {
  const PreparerOptions& options;  // the box, and what the file may hold at most
  std::string dir;                 // of the finished file, and of the unfinished one
  std::string name;                // "sha256:<64 hex>": it becomes rootfs_file(dir, name)
  UnpackRequest request;           // layers and inputs_of; the bounds are filled in
  const std::vector<base::UniqueFd>& blobs;  // one for each layer, verified, read from its start
  StepReasons reasons;
  std::string_view what;           // for messages: "the root file system"
};

// Postcondition of success: rootfs_file(dir, name) is complete, synced, root's alone and for reading only; the result has
// its digest and size. Its folder is not synced yet. On failure it does not exist.
base::Result<CachedImage, ImageFailure> build_erofs(ErofsJob job, const base::Until& until);

}  // namespace cellrund::image
