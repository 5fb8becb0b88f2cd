// What the preparer asks of cellrun-unpack (one JSON document on descriptor 0) and what it answers (one on 1).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "image/unpack/layer.hpp"

namespace cellrund::image {

constexpr int kOutputMountFd = 3;  // a detached mount of the file that becomes the EROFS image
constexpr int kFirstLayerFd = 4;   // the verified blobs, lowest layer first
constexpr std::size_t kMaxLayers = 128;

struct UnpackRequest {
  struct Layer {
    Compression compression = Compression::kNone;
    std::string diff_id;
    std::string folder;  // of the tree, one name; empty: the tree itself
  };
  // The archives are a job's inputs, and everything in the tree belongs to this user, ids of the cell.
  struct Owner {
    std::uint32_t uid = 0, gid = 0;
  };
  std::vector<Layer> layers;
  std::uint64_t max_bytes = 0;
  std::uint64_t max_entries = 0;
  std::uint64_t cpu_seconds = 0;
  std::uint32_t id_count = 0;
  std::optional<Owner> inputs_of;
  std::string mkfs_program;
};

[[nodiscard]] std::string write_request(const UnpackRequest& request);
base::Result<UnpackRequest> parse_request(std::string_view text);

// The box's verdict on the layers. `mismatch`: a diffID was wrong; `host`: this host failed, the image is not to blame.
enum class UnpackVerdict { kUnpacked, kInvalid, kMismatch, kHostFailure };
struct UnpackAnswer {
  UnpackVerdict verdict = UnpackVerdict::kHostFailure;
  std::string message;
};
[[nodiscard]] std::string write_answer(const UnpackAnswer& answer);
// The answer comes from a process that parsed hostile bytes: strict, bounded.
base::Result<UnpackAnswer> parse_answer(std::string_view text);

}  // namespace cellrund::image
