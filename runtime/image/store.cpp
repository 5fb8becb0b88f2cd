#include "image/store.hpp"

#include <algorithm>

#include "image/oci.hpp"
#include "image/rootfs_cache.hpp"

namespace cellrund::image {

using base::Deadline;
using base::Result;
using base::Status;

Result<std::vector<ImageView>> Store::list(Deadline deadline) const {
  std::vector<ImageView> out;
  for (const ImageRecord& record : CR_TRY(content_.list_images(deadline))) {
    ImageView view;
    view.name = record.name;
    view.digest = record.target.digest;
    view.created_at = record.created_at;
    auto cached = load_cached(images_dir_, view.digest);
    if (cached.ok() && cached->has_value()) {
      view.prepared = true;
      view.rootfs_bytes = (*cached)->rootfs_bytes;
      view.rootfs_digest = (*cached)->rootfs_digest;
    }
    out.push_back(std::move(view));
  }
  return out;
}

Status Store::remove(const std::string& name, Deadline deadline) const {
  const ImageRecord record = CR_TRY(content_.find_image(name, deadline).context("remove image"));
  CR_CHECK(content_.remove_image(name, deadline).context("remove image"));
  const std::vector<ImageRecord> rest = CR_TRY(content_.list_images(deadline));
  const std::string& digest = record.target.digest;
  const bool used =
      std::any_of(rest.begin(), rest.end(), [&](const ImageRecord& other) { return other.target.digest == digest; });
  if (!used) {
    return remove_cached(images_dir_, digest).context("remove image " + name);
  }
  // The file stays for the other names, but this name no longer leads to it.
  auto cached = CR_TRY(load_cached(images_dir_, digest));
  auto repository = repository_of(name);
  if (cached.has_value() && repository.ok()) {
    std::erase(cached->repositories, *repository);
    return save_cached(images_dir_, *cached).context("remove image " + name);
  }
  return base::ok();
}

}  // namespace cellrund::image
