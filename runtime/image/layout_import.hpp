// Imports an OCI image layout archive (image-layout.md) into the content store. Runs in the CLI as root.
#pragma once

#include <string>
#include <vector>

#include "base/clock.hpp"
#include "base/result.hpp"
#include "image/content_store.hpp"

namespace cellrund::image {

struct ImportOptions {
  std::string path;        // a tar file, seekable; plain, gzip or zstd
  std::string repository;  // empty: from the archive's annotations
};

struct ImportedImage {
  std::string reference;  // "repo@sha256:<64 hex>", the name of the image record
  std::uint64_t layers = 0;
  std::uint64_t bytes = 0;  // of all blobs
};

// Every image of the archive for linux/amd64. Nothing is recorded whose bytes do not hash to their digests; blobs that
// were stored before a failure are left to the store's garbage collection.
base::Result<std::vector<ImportedImage>> import_layout(const ImportOptions& options, ContentStore& store,
                                                       base::Deadline deadline);

}  // namespace cellrund::image
