// Makes the EROFS file with a job's files: checks the archives against their digests and has the boxed unpacker do the
// rest. Internal to the preparer.
#pragma once

#include "base/clock.hpp"
#include "base/result.hpp"
#include "image/preparer.hpp"
#include "image/rootfs_cache.hpp"

namespace cellrund::image {

// Postcondition of success: rootfs_file() and metadata_file() of plan.image_name() are complete and durable below
// store.images_dir(). On failure neither exists.
base::Result<CachedImage, ImageFailure> build_inputs(const PreparerOptions& options, const InputsPlan& plan, InputStore& store,
                                                     const base::Until& until);

}  // namespace cellrund::image
