// Makes the EROFS file of one image: checks manifest, config and layers against their digests and has the boxed
// unpacker do the rest. Internal to the preparer.
#pragma once

#include "base/clock.hpp"
#include "base/result.hpp"
#include "image/content_store.hpp"
#include "image/preparer.hpp"
#include "image/rootfs_cache.hpp"
#include "model/job_spec.hpp"

namespace cellrund::image {

// Postcondition of success: rootfs_file() and metadata_file() are complete and durable. On failure neither exists.
base::Result<CachedImage, ImageFailure> build_rootfs(const PreparerOptions& options, const model::ImageRef& ref,
                                                     ContentStore& store, const base::Until& until);

}  // namespace cellrund::image
