// Hostile image documents: whatever is accepted must hold what the preparer relies on.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "crypto/digest.hpp"
#include "image/oci.hpp"
#include "image/resolve.hpp"

using namespace cellrund;

namespace {

void require(bool holds) {
  if (!holds) {
    std::abort();
  }
}

void check_blob(const image::Descriptor& blob) {
  require(crypto::is_digest_text(blob.digest));
  require(blob.size > 0 && blob.size <= image::kMaxLayerBytes);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto manifest = image::parse_manifest(text);
  const auto index = image::parse_index(text);
  require(!(manifest.ok() && index.ok()));  // no document is both
  if (manifest.ok()) {
    require(!manifest->layers.empty() && manifest->layers.size() <= 128);
    check_blob(manifest->config);
    for (const image::Layer& layer : manifest->layers) {
      check_blob(layer.blob);
    }
  }
  if (index.ok()) {
    for (const image::IndexEntry& entry : *index) {
      check_blob(entry.blob);
      const auto repository = image::repository_of(entry.name);
      require(!repository.ok() || repository->find("..") == std::string::npos);
    }
  }
  const auto config = image::parse_config(text);
  if (config.ok()) {
    for (const std::string& diff_id : config->diff_ids) {
      require(crypto::is_digest_text(diff_id));
    }
    const auto process = image::resolve_process(config->process, {});
    require(!process.ok() || (!process->args.empty() && process->cwd.front() == '/'));
  }
  return 0;
}
