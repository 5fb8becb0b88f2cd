// One layer blob: decompressed, hashed and applied to a tree. The only libarchive include besides layout_import.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.hpp"
#include "image/unpack/tree.hpp"

namespace cellrund::image {

enum class Compression { kNone, kGzip, kZstd };

// What an archive is for. Inputs of a job (a task, a seed) are files, folders and links and nothing else: names that mean a
// whiteout in a layer are plain names, owners and setuid bits do not count.
enum class Purpose { kLayer, kInputs };

// What all layers of an image may take together. Counts down.
struct Budget {
  std::uint64_t bytes = 0;  // of regular files, as their headers claim (a hole counts)
  std::uint64_t entries = 0;
  std::uint64_t stream_bytes = 0;  // decompressed tar, padding included: bounds a decompression bomb
};

// Reads the blob from the present position of `fd`. `diff_id` is the digest that the decompressed bytes must have.
// kInvalidArgument: the layer is malformed or hostile; kDataLoss: its diffID is another; kResourceExhausted: over
// budget. Owners, modes, links and FIFOs are kept; times and extended attributes are not (file capabilities mean
// nothing under no_new_privs, and ACLs are no part of the evidence); device nodes are refused.
// `tree` was made for the same purpose.
base::Status apply_layer(int fd, Compression compression, const std::string& diff_id, Tree& tree, Budget& budget,
                         Purpose purpose = Purpose::kLayer);

}  // namespace cellrund::image
