// OCI image layout archives (image-layout.md), right and wrong.
#pragma once

#include <string>

#include "base/json.hpp"
#include "tests/support/image_store.hpp"
#include "tests/support/tar.hpp"

namespace cellrund::test {

namespace json = base::json;

struct LayoutOptions {
  std::string layer = Tar().file("hello", "world").bytes();
  std::string name = "registry.example/tool:1.0";
  std::string key = "org.opencontainers.image.ref.name";
  std::string architecture = "amd64";
  bool with_layer = true;
  bool forged_layer = false;
  bool nested = false;
  int copies = 1;
};

inline std::string blob_name(const std::string& bytes) {
  return "blobs/sha256/" + crypto::digest_text(base::as_bytes(bytes)).substr(7);
}

// An OCI image layout archive with one image of one layer.
inline std::string layout(const LayoutOptions& options, std::string* manifest_out = nullptr) {
  Tar out;
  out.file("oci-layout", R"({"imageLayoutVersion":"1.0.0"})");
  out.folder("blobs").folder("blobs/sha256");
  const std::string layer = options.layer;
  const std::string config = json::write(json::Object{
      {"os", "linux"},
      {"architecture", options.architecture},
      {"rootfs",
       json::Object{{"type", "layers"}, {"diff_ids", json::Array{crypto::digest_text(base::as_bytes(layer))}}}}});
  const std::string manifest = json::write(json::Object{{"schemaVersion", 2},
                                                        {"mediaType", kManifestType},
                                                        {"config", descriptor(kConfigType, config)},
                                                        {"layers", json::Array{descriptor(kTarType, layer)}}});
  json::Array entries;
  for (int i = 0; i < options.copies; ++i) {
    json::Object entry = descriptor(kManifestType, manifest);
    if (!options.name.empty() && !options.nested) {
      entry.set("annotations", json::Object{{options.key, options.name + (i == 0 ? "" : std::to_string(i))}});
    }
    entries.emplace_back(std::move(entry));
  }
  std::string index = json::write(json::Object{{"schemaVersion", 2}, {"manifests", std::move(entries)}});
  if (options.nested) {
    out.file(blob_name(index), index);
    json::Object entry = descriptor("application/vnd.oci.image.index.v1+json", index);
    entry.set("annotations", json::Object{{options.key, options.name}});
    index = json::write(json::Object{{"schemaVersion", 2}, {"manifests", json::Array{std::move(entry)}}});
  }
  out.file(blob_name(manifest), manifest).file(blob_name(config), config);
  if (options.with_layer) {
    out.file(blob_name(layer), options.forged_layer ? std::string(layer.size(), 'x') : layer);
  }
  out.file("index.json", index);
  if (manifest_out != nullptr) {
    *manifest_out = manifest;
  }
  return out.bytes();
}

}  // namespace cellrund::test
