// A content store in memory, and images to put into it.
#pragma once

#include <map>
#include <set>
#include <string>

#include "base/file.hpp"
#include "base/json.hpp"
#include "crypto/digest.hpp"
#include "image/content_store.hpp"

namespace cellrund::test {

class MemoryStore : public image::ContentStore {
 public:
  std::map<std::string, std::string> blobs;          // digest → bytes
  std::map<std::string, image::ImageRecord> images;  // by name
  std::map<std::string, image::Labels> labels;       // digest → labels
  int held = 0;
  int lookups = 0;

  base::Result<image::ImageRecord> find_image(const std::string& name, const base::Until&) override {
    ++lookups;
    const auto at = images.find(name);
    if (at == images.end()) {
      return base::Error(base::Errc::kNotFound, "no image " + name);
    }
    return at->second;
  }
  base::Result<std::vector<image::ImageRecord>> list_images(base::Deadline) override {
    std::vector<image::ImageRecord> out;
    for (const auto& [name, record] : images) {
      out.push_back(record);
    }
    return out;
  }
  base::Status put_image(const std::string& name, const image::Descriptor& target, base::Deadline) override {
    images[name] = {name, target, ""};
    return base::ok();
  }
  base::Status remove_image(const std::string& name, base::Deadline) override {
    return images.erase(name) != 0 ? base::ok() : base::Status(base::Error(base::Errc::kNotFound, "no image " + name));
  }
  base::Result<std::string> read_blob(const std::string& digest, std::size_t limit, const base::Until&) override {
    const auto at = blobs.find(digest);
    if (at == blobs.end()) {
      return base::Error(base::Errc::kNotFound, "no blob " + digest);
    }
    if (at->second.size() > limit) {
      return base::Error(base::Errc::kResourceExhausted, "blob too long");
    }
    return at->second;
  }
  base::Status fetch_blob(const std::string& digest, int fd, std::uint64_t limit, const base::Until& until) override {
    const std::string text = CR_TRY(read_blob(digest, limit, until));
    return base::write_all(fd, base::as_bytes(text));
  }
  base::Status ingest_blob(const image::Descriptor& blob, int fd, const image::Labels& with, base::Deadline) override {
    blobs[blob.digest] = CR_TRY(base::read_fd(fd, blob.size));
    labels[blob.digest] = with;
    return base::ok();
  }
  base::Status hold(base::Deadline) override {
    ++held;
    return base::ok();
  }
  base::Status release(base::Deadline) override {
    --held;
    return base::ok();
  }

  std::string add(const std::string& bytes) {
    const std::string digest = crypto::digest_text(base::as_bytes(bytes));
    blobs[digest] = bytes;
    return digest;
  }
};

constexpr const char* kManifestType = "application/vnd.oci.image.manifest.v1+json";
constexpr const char* kConfigType = "application/vnd.oci.image.config.v1+json";
constexpr const char* kTarType = "application/vnd.oci.image.layer.v1.tar";

inline base::json::Object descriptor(const std::string& type, const std::string& bytes) {
  return {{"mediaType", type},
          {"digest", crypto::digest_text(base::as_bytes(bytes))},
          {"size", static_cast<std::uint64_t>(bytes.size())}};
}

// Adds an image of uncompressed layers and its record; returns the manifest's digest.
inline std::string add_image(MemoryStore& store, const std::string& repository,
                             const std::vector<std::string>& layers) {
  base::json::Array diff_ids;
  base::json::Array descriptors;
  for (const std::string& layer : layers) {
    diff_ids.emplace_back(store.add(layer));
    descriptors.emplace_back(descriptor(kTarType, layer));
  }
  const std::string config = base::json::write(base::json::Object{
      {"os", "linux"},
      {"architecture", "amd64"},
      {"config", base::json::Object{{"Entrypoint", base::json::Array{"/bin/tool"}}, {"Env", base::json::Array{"A=1"}}}},
      {"rootfs", base::json::Object{{"type", "layers"}, {"diff_ids", std::move(diff_ids)}}}});
  store.add(config);
  const std::string manifest = base::json::write(base::json::Object{{"schemaVersion", 2},
                                                                    {"mediaType", kManifestType},
                                                                    {"config", descriptor(kConfigType, config)},
                                                                    {"layers", std::move(descriptors)}});
  const std::string digest = store.add(manifest);
  const std::string name = repository + "@" + digest;
  store.images[name] = {name, {kManifestType, digest, manifest.size()}, ""};
  return digest;
}

}  // namespace cellrund::test
