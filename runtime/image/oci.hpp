// OCI image-spec documents (image-index.md, manifest.md, config.md), and Docker's twins of them. Pure parsing of
// hostile bytes: bounded, strict where it matters, and tolerant of unknown fields, as the spec demands. All failures
// are kInvalidArgument or kResourceExhausted.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "image/content_store.hpp"
#include "model/stages.hpp"

namespace cellrund::image {

constexpr std::size_t kMaxDocumentBytes = 4UL * 1024 * 1024;
constexpr std::uint64_t kMaxLayerBytes = 16ULL << 30U;

enum class LayerCompression { kNone, kGzip, kZstd };

struct Layer {
  Descriptor blob;
  LayerCompression compression = LayerCompression::kNone;
};

struct Manifest {
  std::string media_type;
  Descriptor config;
  std::vector<Layer> layers;  // lowest first, 1 to 128
};

struct IndexEntry {
  Descriptor blob;
  std::string os;  // empty when the entry has no platform
  std::string architecture;
  std::string name;  // from the annotations, untrusted; empty without one
};

struct Config {
  model::ImageConfig process;
  std::vector<std::string> diff_ids;  // "sha256:…" of the decompressed layers, lowest first
  std::string os;
  std::string architecture;
};

[[nodiscard]] bool is_index_type(std::string_view media_type) noexcept;
[[nodiscard]] bool is_manifest_type(std::string_view media_type) noexcept;

// A manifest without layers is refused (CVE-2026-24054: some runtimes then attach a disk of the host), and so are
// layers that are to be fetched from elsewhere, artifacts, and a document that could also be read as an index.
base::Result<Manifest> parse_manifest(std::string_view text);
base::Result<std::vector<IndexEntry>> parse_index(std::string_view text);
base::Result<Config> parse_config(std::string_view text);

// "repo[:tag][@digest]" without tag and digest. kInvalidArgument when what is left cannot be a repository.
base::Result<std::string> repository_of(std::string_view name);

}  // namespace cellrund::image
