// The files behind prepared images: <dir>/<manifest hex>.erofs and .json. The JSON file is written last and removed
// first, so an .erofs file without one is leftover and never used.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "model/stages.hpp"

namespace cellrund::image {

struct CachedImage {
  std::string manifest_digest;  // "sha256:…"
  std::string rootfs_digest;    // "sha256:…" of the EROFS file
  std::uint64_t rootfs_bytes = 0;
  std::vector<std::string> repositories;  // names under which the content store is known to have it
  model::ImageConfig config;
};

// `digest` is a valid "sha256:<64 hex>".
[[nodiscard]] std::string rootfs_file(const std::string& dir, const std::string& digest);
[[nodiscard]] std::string metadata_file(const std::string& dir, const std::string& digest);

// nullopt when there is none, or none that can be understood: then it is made again.
base::Result<std::optional<CachedImage>> load_cached(const std::string& dir, const std::string& digest);
// Durable on return.
base::Status save_cached(const std::string& dir, const CachedImage& image);
// How the name of a file begins that is not whole yet.
inline constexpr std::string_view kUnfinishedImage = ".building-";
// What an interrupted build leaves behind, in a folder that no build uses at the moment.
base::Status remove_unfinished(const std::string& dir);
// Missing files are success.
base::Status remove_cached(const std::string& dir, const std::string& digest);

}  // namespace cellrund::image
