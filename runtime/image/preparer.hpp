// From a pinned reference to one EROFS file made of exactly the layers that the digest names.
//
// The daemon hashes bytes and reads two small JSON documents; layers are decompressed and unpacked by cellrun-unpack in
// a box (host/box.hpp). Results are cached per manifest below the images folder and are checked against their digest
// when first used after a start. Thread-safe; concurrent calls for one image share the work.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/clock.hpp"
#include "base/result.hpp"
#include "host/box.hpp"
#include "image/content_store.hpp"
#include "model/outcome.hpp"
#include "model/stages.hpp"

namespace cellrund::image {

// Why an image cannot be used: ImageNotFound, ImagePullFailed (the store or this host failed), ImageInvalid,
// ImageDigestMismatch or StartDeadlineExceeded.
struct ImageFailure {
  model::Reason reason = model::Reason::kImageInvalid;
  std::string message;
};

struct PreparerOptions {
  std::string images_dir;      // made if missing, 0700
  std::string unpack_program;  // absolute path of cellrun-unpack
  std::string mkfs_program = "/usr/bin/mkfs.erofs";
  host::BoxIds box_ids;
  // Unpacked, all layers together. While an image is made, its tree is in memory, so half of what is available then is
  // a bound as well.
  std::uint64_t max_image_bytes = 8ULL << 30U;
  std::uint64_t max_entries = 1'000'000;  // tar entries of all layers together
};

class Preparer {
 public:
  // Makes the folder and removes what an interrupted run left in it.
  static base::Result<std::unique_ptr<Preparer>> create(PreparerOptions options);
  Preparer(const Preparer&) = delete;
  Preparer& operator=(const Preparer&) = delete;
  Preparer(Preparer&&) = delete;
  Preparer& operator=(Preparer&&) = delete;
  ~Preparer();

  // A stop ends it within moments, whatever it is doing; the failure then has no reason of its own (ImagePullFailed).
  base::Result<model::PreparedImage, ImageFailure> prepare(const model::ImageRef& ref, ContentStore& store,
                                                           const base::Until& until);

 private:
  class Work;
  explicit Preparer(std::unique_ptr<Work> work);
  std::unique_ptr<Work> work_;
};

}  // namespace cellrund::image
