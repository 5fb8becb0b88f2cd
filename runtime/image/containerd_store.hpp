// containerd's content store and image records as a ContentStore. Thread-safe but for hold/release, which belong to one
// import at a time.
#pragma once

#include <string>

#include "containerd/client.hpp"
#include "image/content_store.hpp"

namespace cellrund::image {

class ContainerdStore : public ContentStore {
 public:
  // `client` is borrowed and outlives the store.
  explicit ContainerdStore(containerd::Client& client) : client_(client) {}

  base::Result<ImageRecord> find_image(const std::string& name, const base::Until& until) override;
  base::Result<std::vector<ImageRecord>> list_images(base::Deadline deadline) override;
  base::Status put_image(const std::string& name, const Descriptor& target, base::Deadline deadline) override;
  base::Status remove_image(const std::string& name, base::Deadline deadline) override;
  base::Result<std::string> read_blob(const std::string& digest, std::size_t limit, const base::Until& until) override;
  base::Status fetch_blob(const std::string& digest, int fd, std::uint64_t limit, const base::Until& until) override;
  base::Status ingest_blob(const Descriptor& blob, int fd, const Labels& labels, base::Deadline deadline) override;
  base::Status hold(base::Deadline deadline) override;
  base::Status release(base::Deadline deadline) override;

 private:
  containerd::Client& client_;
  std::string lease_;  // empty: none held
};

}  // namespace cellrund::image
