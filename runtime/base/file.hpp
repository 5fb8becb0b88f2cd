// Bounded file I/O. Every read has a limit; every durable write is fsynced together with its folder.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"

namespace cellrund::base {

using Bytes = std::vector<std::uint8_t>;
using BytesView = std::span<const std::uint8_t>;

[[nodiscard]] inline BytesView as_bytes(std::string_view text) noexcept {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}
[[nodiscard]] inline std::string_view as_text(BytesView bytes) noexcept {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// open(2) with O_CLOEXEC added. The error names the path.
Result<UniqueFd> open_file(const std::string& path, int flags, unsigned mode = 0);
Result<UniqueFd> open_at(int dir_fd, const std::string& name, int flags, unsigned mode = 0);

// Whole content, or kResourceExhausted when it is longer than `limit` bytes.
Result<std::string> read_file(const std::string& path, std::size_t limit);
Result<std::string> read_fd(int fd, std::size_t limit);

// All bytes, through short writes and EINTR. For blocking descriptors.
Status write_all(int fd, BytesView bytes);

// Postcondition: `path` holds `content` durably with `mode`, or is unchanged (write to a sibling, fsync, rename,
// fsync of the folder).
Status write_file_atomic(const std::string& path, std::string_view content, unsigned mode);
// In place, for kernel files such as cgroup.procs; no O_CREAT.
Status write_kernel_file(const std::string& path, std::string_view content);

// mkdir(2); an existing directory is fine, anything else of that name is kAlreadyExists.
Status make_dir(const std::string& path, unsigned mode);
// The same for every missing parent.
Status make_dirs(const std::string& path, unsigned mode);
// unlink(2) or rmdir(2); a missing object is success.
Status remove_file(const std::string& path);
Status remove_dir(const std::string& path);
[[nodiscard]] bool exists(const std::string& path) noexcept;

// (st_dev, st_ino): what identifies a file or a namespace, whatever it is called.
struct FileId {
  std::uint64_t dev = 0;
  std::uint64_t ino = 0;
  friend auto operator<=>(const FileId&, const FileId&) = default;
};
Result<FileId> file_id(const std::string& path);
Result<FileId> file_id(int fd);

// Entry names of a directory without "." and "..", at most `limit` (kResourceExhausted above it).
Result<std::vector<std::string>> list_dir(const std::string& path, std::size_t limit);

// memfd_create(2) holding `content`, sealed against write, grow and shrink.
Result<UniqueFd> sealed_memfd(const char* name, BytesView content);

// poll(2) for one descriptor. True when ready, false at the deadline.
Result<bool> wait_readable(int fd, Deadline deadline);

}  // namespace cellrund::base
