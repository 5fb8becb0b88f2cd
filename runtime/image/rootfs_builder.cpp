#include "image/rootfs_builder.hpp"

#include <fcntl.h>
#include <unistd.h>

#include "base/file.hpp"
#include "base/log.hpp"
#include "crypto/digest.hpp"
#include "image/erofs_builder.hpp"
#include "image/oci.hpp"
#include "image/unpack/request.hpp"

namespace cellrund::image {
namespace {

using base::Error;
using base::Result;
using base::UniqueFd;
using base::Until;
using model::Reason;
template <typename T>
using Outcome = Result<T, ImageFailure>;

Compression to_compression(LayerCompression compression) {
  switch (compression) {
    case LayerCompression::kNone:
      return Compression::kNone;
    case LayerCompression::kGzip:
      return Compression::kGzip;
    case LayerCompression::kZstd:
      return Compression::kZstd;
  }
  return Compression::kNone;
}

// A small document of the store, known to be what its digest says.
Outcome<std::string> read_document(ContentStore& store, const std::string& digest, std::string_view what,
                                   const Until& until) {
  std::string text =
      CR_TRY(or_reason(store.read_blob(digest, kMaxDocumentBytes, until).context(what), Reason::kImagePullFailed));
  if (crypto::digest_text(base::as_bytes(text)) != digest) {
    return ImageFailure{Reason::kImageDigestMismatch,
                        std::string(what) + ": its bytes do not have the digest " + digest};
  }
  return text;
}

// A layer in a nameless file that vanishes with the descriptor. Hashed here, so that the box gets verified bytes only.
Outcome<UniqueFd> fetch_layer(const std::string& dir, ContentStore& store, const Descriptor& blob, const Until& until) {
  UniqueFd fd = CR_TRY(or_reason(base::open_file(dir, O_TMPFILE | O_RDWR, 0600), Reason::kImagePullFailed));
  const std::string where = "layer " + blob.digest;
  CR_CHECK(
      or_reason(store.fetch_blob(blob.digest, fd.get(), blob.size, until).context(where), Reason::kImagePullFailed));
  const std::string digest =
      CR_TRY(or_reason(crypto::digest_of_fd(fd.get(), blob.size).context(where), Reason::kImagePullFailed));
  if (digest != blob.digest) {
    return ImageFailure{Reason::kImageDigestMismatch, where + ": its bytes have the digest " + digest};
  }
  if (::lseek(fd.get(), 0, SEEK_SET) < 0) {
    return image_failure(Error::from_errno(where), Reason::kImagePullFailed);
  }
  return fd;
}

}  // namespace

Outcome<CachedImage> build_rootfs(const PreparerOptions& options, const model::ImageRef& ref, ContentStore& store,
                                  const Until& until) {
  const ImageRecord record =
      CR_TRY(or_reason(store.find_image(ref.text(), until).context("find image"), Reason::kImagePullFailed));
  if (record.target.digest != ref.digest) {
    return ImageFailure{Reason::kImageDigestMismatch,
                        "image record " + ref.text() + " points at " + record.target.digest};
  }
  const std::string manifest_text = CR_TRY(read_document(store, ref.digest, "manifest", until));
  const Manifest manifest = CR_TRY(or_reason(parse_manifest(manifest_text), Reason::kImageInvalid));
  const std::string config_text = CR_TRY(read_document(store, manifest.config.digest, "config", until));
  const Config config = CR_TRY(or_reason(parse_config(config_text), Reason::kImageInvalid));
  if (config.os != "linux" || config.architecture != "amd64") {
    return ImageFailure{Reason::kImageInvalid, "config: it is for " +
                                                   base::log::quoted(config.os + "/" + config.architecture) +
                                                   ", this node runs linux/amd64"};
  }
  if (config.diff_ids.size() != manifest.layers.size()) {
    return ImageFailure{Reason::kImageInvalid, "config: it names " + std::to_string(config.diff_ids.size()) +
                                                   " diff_ids for " + std::to_string(manifest.layers.size()) +
                                                   " layers"};
  }
  std::vector<UniqueFd> layers;
  for (const Layer& layer : manifest.layers) {
    layers.push_back(CR_TRY(fetch_layer(options.images_dir, store, layer.blob, until)));
  }
  UnpackRequest request;
  for (std::size_t i = 0; i < manifest.layers.size(); ++i) {
    request.layers.push_back({to_compression(manifest.layers[i].compression), config.diff_ids[i], ""});
  }
  CachedImage image = CR_TRY(build_erofs({.options = options,
                                          .dir = options.images_dir,
                                          .name = ref.digest,
                                          .request = std::move(request),
                                          .blobs = layers,
                                          .reasons = {Reason::kImageInvalid, Reason::kImageDigestMismatch, Reason::kImagePullFailed},
                                          .what = "the root file system"},
                                         until));
  image.repositories = {ref.repository};
  image.config = config.process;
  // Its fsync of the folder makes the image's own rename durable, too.
  CR_CHECK(or_reason(save_cached(options.images_dir, image), Reason::kImagePullFailed));
  return image;
}

}  // namespace cellrund::image
