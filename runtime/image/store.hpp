// The images of this node, for `cellrun image ls` and `rm`. Runs in the CLI as root.
#pragma once

#include <string>
#include <vector>

#include "base/clock.hpp"
#include "base/result.hpp"
#include "image/content_store.hpp"

namespace cellrund::image {

struct ImageView {
  std::string name;  // "repo@sha256:<64 hex>"
  std::string digest;
  std::string created_at;
  bool prepared = false;  // its root file system is cached
  std::uint64_t rootfs_bytes = 0;
  std::string rootfs_digest;
};

class Store {
 public:
  // `content` is borrowed and outlives the store.
  Store(std::string images_dir, ContentStore& content) : images_dir_(std::move(images_dir)), content_(content) {}
  base::Result<std::vector<ImageView>> list(base::Deadline deadline) const;
  // Removes the record and, when no other name has the digest, the cached root file system. Running cells keep theirs:
  // they hold it open. kNotFound for an unknown name.
  base::Status remove(const std::string& name, base::Deadline deadline) const;

 private:
  std::string images_dir_;
  ContentStore& content_;
};

}  // namespace cellrund::image
