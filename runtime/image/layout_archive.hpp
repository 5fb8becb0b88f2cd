// Random access to the members of an OCI image layout in a tar file (image-layout.md). Read by libarchive, bounded, and
// never unpacked to a folder. Runs in the CLI.
#pragma once

#include <cstdint>
#include <string>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "image/content_store.hpp"

namespace cellrund::image {

class LayoutArchive {
 public:
  // kInvalidArgument when the file is no regular file, or no image layout of version 1.0.0.
  static base::Result<LayoutArchive> open(const std::string& path);

  // The text of index.json.
  [[nodiscard]] base::Result<std::string> index() const;
  // A small blob, its digest and size verified.
  [[nodiscard]] base::Result<std::string> document(const Descriptor& blob) const;
  // A blob in a nameless file in `dir`, verified, at offset 0.
  [[nodiscard]] base::Result<base::UniqueFd> extract(const Descriptor& blob, const std::string& dir) const;

 private:
  explicit LayoutArchive(base::UniqueFd file) : file_(std::move(file)) {}
  [[nodiscard]] base::Result<std::string> read_member(const std::string& name, std::size_t limit) const;

  base::UniqueFd file_;
};

}  // namespace cellrund::image
