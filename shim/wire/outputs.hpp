// The archive in which a cell hands over what its workload left in /outputs: cell-init writes it to the virtio-serial
// port (or, in the `process` lane, to a socket), the boxed collector reads it. Everything in it is the guest's word.
//
//   "CRO1", then records, integers little-endian:
//     1  file     u32 mode, u64 size, u16 path length, path; then pieces (u32 length up to 64 KiB, bytes), a piece of
//                 length 0, and u8: 0 the file is whole, 1 it changed while it was read
//     2  refused  u8 why, u16 path length, path: what the guest itself did not send
//     3  end      u64 how many more it refused than it listed; nothing follows
//
// The reader answers the end with one byte, kArchiveTaken: only then is nothing on its way any more that would be lost with
// the machine.
//
// A format of its own and not tar: no header fields in text, no extension records, no padding, each length bounded where
// it stands, so that the reader has one state per field and needs no more memory than one path.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/file.hpp"
#include "base/result.hpp"

namespace cellrund::wire {

inline constexpr std::uint8_t kArchiveTaken = 6;  // ASCII ACK

// Of one output file.
inline constexpr std::size_t kMaxOutputPath = 1024;
inline constexpr std::size_t kMaxOutputName = 255;
inline constexpr std::size_t kMaxOutputDepth = 32;  // components of a path
// Of a job, whatever it asks for.
inline constexpr std::uint64_t kMaxOutputBytes = 1ULL << 30U;
inline constexpr std::uint64_t kMaxOutputFiles = 4096;
inline constexpr std::uint64_t kMaxOutputPaths = 512ULL * 1024;  // bytes of all paths together
// Of the archive.
inline constexpr std::size_t kMaxArchivePath = 4096;
inline constexpr std::size_t kMaxPiece = 65536;
inline constexpr std::size_t kMaxListedRefusals = 1024;  // what an honest guest lists before it only counts

// What the workload may leave; part of a Workload.
struct OutputsPlan {
  std::uint64_t max_bytes = 0;
  std::uint64_t max_files = 0;
  friend bool operator==(const OutputsPlan&, const OutputsPlan&) = default;
};

enum class OutputRefusal : std::uint8_t {
  kSymlink = 1, kHardLink, kFifo, kSocket, kDevice, kOtherType, kName, kDepth, kLength, kBytes, kFiles, kPaths, kUnreadable, kChanged,
};
inline constexpr std::uint8_t kLastOutputRefusal = static_cast<std::uint8_t>(OutputRefusal::kChanged);
[[nodiscard]] std::string_view to_string(OutputRefusal why) noexcept;

// Why no output may have this path; nullopt for a relative path of plain components in UTF-8 without control characters.
[[nodiscard]] std::optional<OutputRefusal> path_problem(std::string_view path) noexcept;
// UTF-8 of RFC 3629: no overlong form, no surrogate, nothing above U+10FFFF; and no C0, DEL or C1 control character.
[[nodiscard]] bool is_plain_utf8(std::string_view text) noexcept;

// The records, as bytes. A path longer than kMaxArchivePath is cut.
[[nodiscard]] base::Bytes archive_head();
[[nodiscard]] base::Bytes file_record(std::string_view path, std::uint32_t mode, std::uint64_t size);
[[nodiscard]] std::array<std::uint8_t, 4> piece_head(std::uint32_t size);
[[nodiscard]] std::array<std::uint8_t, 5> file_end(bool whole);
[[nodiscard]] base::Bytes refused_record(std::string_view path, OutputRefusal why);
[[nodiscard]] base::Bytes end_record(std::uint64_t unlisted);

// What a reader of the archive tells of it, in order. Between file() and file_end() come only data().
class ArchiveSink {
 public:
  ArchiveSink() = default;
  ArchiveSink(const ArchiveSink&) = delete;
  ArchiveSink& operator=(const ArchiveSink&) = delete;
  ArchiveSink(ArchiveSink&&) = delete;
  ArchiveSink& operator=(ArchiveSink&&) = delete;
  virtual ~ArchiveSink() = default;
  virtual void file(std::string_view path, std::uint32_t mode, std::uint64_t size) = 0;
  virtual void data(base::BytesView bytes) = 0;
  virtual void file_end(bool whole) = 0;
  virtual void refused(std::string_view path, OutputRefusal why) = 0;
  virtual void end(std::uint64_t unlisted) = 0;
};

// Pure; never holds more than one record's head.
class ArchiveReader {
 public:
  explicit ArchiveReader(ArchiveSink& sink) noexcept : sink_(sink) {}
  // kDataLoss where the bytes are no such archive; it then stays failed.
  base::Status feed(base::BytesView bytes);
  // Whether the end record was read.
  [[nodiscard]] bool ended() const noexcept { return state_ == State::kEnded; }

 private:
  enum class State { kMagic, kKind, kFileHead, kFilePath, kPieceHead, kPiece, kFileStatus, kRefusedHead, kRefusedPath, kEndHead, kEnded, kFailed };
  base::Status step();
  base::Status fail(const char* what);
  void expect(State state, std::size_t bytes);

  ArchiveSink& sink_;
  State state_ = State::kMagic;
  std::size_t wanted_ = 4;  // bytes of the field that `state_` reads, or left of a piece
  base::Bytes held_;
  std::uint32_t mode_ = 0;
  std::uint64_t size_ = 0;
  OutputRefusal why_ = OutputRefusal::kSymlink;
};

}  // namespace cellrund::wire
