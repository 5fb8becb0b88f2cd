#include "image/inputs_builder.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <limits>

#include "image/erofs_builder.hpp"

namespace cellrund::image {

using base::Error;
using base::Result;
using base::UniqueFd;
using base::Until;
using model::Reason;

namespace {

constexpr StepReasons kReasons{Reason::kInputsInvalid, Reason::kInputsDigestMismatch, Reason::kCreateContainerError};

// A tar spends two blocks of 512 bytes on the smallest file, which takes a page of the box's memory; a hole is counted as
// if it were full.
constexpr std::uint64_t kTarBlock = 512;
constexpr std::uint64_t kMostGrowth = 8;
constexpr std::uint64_t kFolderBytes = 1ULL << 20U;

struct Archive {
  std::string digest;
  std::string folder;
};

std::vector<Archive> archives_of(const InputsPlan& plan) {
  std::vector<Archive> out;
  if (plan.task.has_value()) {
    out.push_back({*plan.task, "task"});
  }
  if (plan.workspace.has_value()) {
    out.push_back({*plan.workspace, "workspace"});
  }
  return out;
}

// Hashed here, so that the box gets verified bytes only. Nobody but root can change them in between.
Result<UniqueFd, ImageFailure> open_verified(InputStore& store, const Archive& archive, std::uint64_t& total) {
  const std::string where = "inputs: " + archive.folder + " " + archive.digest;
  auto fd = store.open(archive.digest);
  struct stat st {};
  if (!fd.ok() || ::fstat(fd->get(), &st) != 0) {
    return ImageFailure{Reason::kCreateContainerError, where + ": " + (fd.ok() ? "stat" : fd.error().message())};
  }
  total += static_cast<std::uint64_t>(st.st_size);
  const std::string actual = CR_TRY(or_reason(
      crypto::digest_of_fd(fd->get(), std::numeric_limits<std::uint64_t>::max()).context(where), Reason::kCreateContainerError));
  if (actual != archive.digest) {
    store.discard(archive.digest);
    return ImageFailure{Reason::kInputsDigestMismatch, where + ": the stored bytes have the digest " + actual +
                                                           "; they were removed: upload the archive again"};
  }
  return std::move(*fd);
}

}  // namespace

std::vector<std::string> InputsPlan::archives() const {
  std::vector<std::string> out;
  for (const Archive& archive : archives_of(*this)) {
    out.push_back(archive.digest);
  }
  return out;
}

std::string InputsPlan::image_name() const {
  std::string text = "owner " + std::to_string(uid) + ":" + std::to_string(gid) + "\n";
  for (const Archive& archive : archives_of(*this)) {
    text += archive.folder + " " + archive.digest + "\n";
  }
  return crypto::digest_text(base::as_bytes(text));
}

Result<CachedImage, ImageFailure> build_inputs(const PreparerOptions& options, const InputsPlan& plan, InputStore& store,
                                               const Until& until) {
  std::vector<UniqueFd> blobs;
  UnpackRequest request;
  request.inputs_of = UnpackRequest::Owner{plan.uid, plan.gid};
  std::uint64_t total = 0;
  for (const Archive& archive : archives_of(plan)) {
    blobs.push_back(CR_TRY(open_verified(store, archive, total)));
    request.layers.push_back({Compression::kNone, archive.digest, archive.folder});
  }
  PreparerOptions bounded = options;
  bounded.max_image_bytes = std::min(options.max_image_bytes, total * kMostGrowth + kFolderBytes);
  bounded.max_entries = std::min(options.max_entries, total / kTarBlock + 1);
  const std::string dir = store.images_dir();
  CachedImage image = CR_TRY(build_erofs({.options = bounded,
                                          .dir = dir,
                                          .name = plan.image_name(),
                                          .request = std::move(request),
                                          .blobs = blobs,
                                          .reasons = kReasons,
                                          .what = "the image with the inputs"},
                                         until));
  // Its fsync of the folder makes the image's own rename durable, too.
  CR_CHECK(or_reason(save_cached(dir, image), kReasons.host));
  return image;
}

}  // namespace cellrund::image
