// What the image steps need of a content-addressed store. containerd's is behind it in the product
// (image/containerd_store.hpp); a folder is in the unit tests. Thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.hpp"
#include "base/result.hpp"
#include "base/until.hpp"

namespace cellrund::image {

// OCI image-spec, descriptor.md.
struct Descriptor {
  std::string media_type;
  std::string digest;  // "sha256:<64 hex>"
  std::uint64_t size = 0;
  friend bool operator==(const Descriptor&, const Descriptor&) = default;
};

struct ImageRecord {
  std::string name;  // "repo@sha256:<64 hex>"
  Descriptor target;
  std::string created_at;  // RFC 3339, for people
};

using Labels = std::vector<std::pair<std::string, std::string>>;

class ContentStore {
 public:
  ContentStore() = default;
  ContentStore(const ContentStore&) = delete;
  ContentStore& operator=(const ContentStore&) = delete;
  ContentStore(ContentStore&&) = delete;
  ContentStore& operator=(ContentStore&&) = delete;
  virtual ~ContentStore() = default;

  // kNotFound when there is no image of that name.
  virtual base::Result<ImageRecord> find_image(const std::string& name, const base::Until& until) = 0;
  virtual base::Result<std::vector<ImageRecord>> list_images(base::Deadline deadline) = 0;
  // Creates the record or points an existing one at `target`.
  virtual base::Status put_image(const std::string& name, const Descriptor& target, base::Deadline deadline) = 0;
  // kNotFound when there is none. The blobs go with the store's own garbage collection.
  virtual base::Status remove_image(const std::string& name, base::Deadline deadline) = 0;

  // The bytes of a blob, unverified. kNotFound; kResourceExhausted above `limit`.
  virtual base::Result<std::string> read_blob(const std::string& digest, std::size_t limit,
                                              const base::Until& until) = 0;
  // Writes exactly the blob's bytes to `fd`, unverified; stops with kResourceExhausted above `limit`.
  virtual base::Status fetch_blob(const std::string& digest, int fd, std::uint64_t limit, const base::Until& until) = 0;
  // Stores `blob.size` bytes from offset 0 of `fd` under `blob.digest` with `labels`; an existing blob gets the labels.
  virtual base::Status ingest_blob(const Descriptor& blob, int fd, const Labels& labels, base::Deadline deadline) = 0;

  // Between these two, ingested blobs are held against garbage collection.
  virtual base::Status hold(base::Deadline deadline) = 0;
  virtual base::Status release(base::Deadline deadline) = 0;
};

}  // namespace cellrund::image
