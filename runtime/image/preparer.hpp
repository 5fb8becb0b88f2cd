// From a pinned reference to one EROFS file made of exactly the layers that the digest names.
//
// The daemon hashes bytes and reads two small JSON documents; layers are decompressed and unpacked by cellrun-unpack in
// a box (host/box.hpp). Results are cached per manifest below the images folder and are checked against their digest
// when first used after a start. Thread-safe; concurrent calls for one image share the work.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "base/result.hpp"
#include "host/box.hpp"
#include "image/content_store.hpp"
#include "image/input_store.hpp"
#include "model/outcome.hpp"
#include "model/stages.hpp"

namespace cellrund::image {

// Why an image cannot be used: ImageNotFound, ImagePullFailed (the store or this host failed), ImageInvalid,
// ImageDigestMismatch or StartDeadlineExceeded. Of inputs: InputsInvalid, InputsDigestMismatch, CreateContainerError (this
// host failed) or StartDeadlineExceeded.
struct ImageFailure {
  model::Reason reason = model::Reason::kImageInvalid;
  std::string message;
};

// Which archives a job has at /task and under /workspace (at least one), and whose they are to be in its cell.
struct InputsPlan {
  std::optional<std::string> task, workspace;  // "sha256:<64 hex>"
  std::uint32_t uid = 0, gid = 0;
  [[nodiscard]] std::vector<std::string> archives() const;
  // "sha256:<64 hex>" over all of that: one image serves all jobs of one plan.
  [[nodiscard]] std::string image_name() const;
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

  // The same for a job's files, which the store has (and its pin keeps). Their archives are hashed before they are unpacked;
  // one whose bytes do not have their digest is discarded.
  base::Result<model::PreparedInputs, ImageFailure> prepare_inputs(const InputsPlan& plan, InputStore& store,
                                                                   const base::Until& until);

 private:
  class Work;
  explicit Preparer(std::unique_ptr<Work> work);
  std::unique_ptr<Work> work_;
};

}  // namespace cellrund::image
