// Writes a tar archive (POSIX.1-2017, pax interchange format) whose bytes depend on the entries alone: no times, no owners.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/file.hpp"
#include "base/result.hpp"

namespace cellrund::cli {

class TarFile {
 public:
  // `fd` stays the caller's. At most `limit` bytes are written to it: then kResourceExhausted.
  TarFile(int fd, std::uint64_t limit) : fd_(fd), limit_(limit) {}

  // Paths are relative; of `mode` the permission bits count.
  base::Status folder(std::string_view path, unsigned mode);
  base::Status symlink(std::string_view path, std::string_view target);
  // Reads `size` bytes from `content`. kFailedPrecondition when it has fewer or more.
  base::Status file(std::string_view path, unsigned mode, int content, std::uint64_t size);
  // The end of the archive.
  base::Status finish();
  [[nodiscard]] std::uint64_t bytes() const noexcept { return written_; }

 private:
  struct Header;
  base::Status header(const Header& header);
  base::Status put(base::BytesView bytes);
  base::Status pad();
  int fd_;
  std::uint64_t limit_;
  std::uint64_t written_ = 0;
};

}  // namespace cellrund::cli
