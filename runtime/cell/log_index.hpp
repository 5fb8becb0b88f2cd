// The index of a job's log: one record for each piece of output, in order of arrival, with stream, length, wall-clock time
// and check sums of the piece and of the record itself. It says which bytes of the two output files are the log: after a
// crash, what no whole record vouches for is cut.
//
// The file `index` holds 32-byte records, little endian:
//   0 kind (0 stdout, 1 stderr, 2 end: nothing was stored from here on)   4 length   8 wall-clock nanoseconds
//   16 CRC-32 of the piece   20 CRC-32 of bytes 0 to 19   24 zero
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "base/clock.hpp"
#include "base/fd.hpp"
#include "base/file.hpp"
#include "base/result.hpp"
#include "cell/node.hpp"

namespace cellrund::cell {

struct LogRecord {
  enum class Kind : std::uint8_t { kStdout = 0, kStderr = 1, kCut = 2 };
  Kind kind = Kind::kStdout;
  std::uint32_t bytes = 0;
  std::int64_t wall_ns = 0;
  std::uint32_t crc = 0;
};

inline constexpr std::size_t kLogRecordBytes = 32;
// A job that makes more pieces than this keeps its output, whose last part then bears the time of the last record.
inline constexpr std::uint64_t kMaxLogRecords = 65536;
// Pieces of one stream within this time of the first share a record.
inline constexpr std::chrono::milliseconds kLogPieceSpan{5};

[[nodiscard]] std::array<std::uint8_t, kLogRecordBytes> encode(const LogRecord& record);
// nullopt: torn, or not a record.
[[nodiscard]] std::optional<LogRecord> decode_log_record(base::BytesView bytes);
// CRC-32 of what `crc` covers and then of `bytes`; start with 0.
[[nodiscard]] std::uint32_t extend_crc(std::uint32_t crc, base::BytesView bytes);

// Written by one thread.
class LogIndex {
 public:
  static base::Result<LogIndex> create(const std::string& path);
  // After the bytes themselves were written.
  base::Status add(Stream stream, base::BytesView bytes, base::WallTime now);
  base::Status mark_cut(base::WallTime now);

 private:
  explicit LogIndex(base::UniqueFd file) : file_(std::move(file)) {}
  base::Status put(const LogRecord& record, std::uint64_t number);
  base::UniqueFd file_;
  std::uint64_t count_ = 0;
  LogRecord last_;
};

// The record with this number; nullopt at the end, which a torn record is too.
base::Result<std::optional<LogRecord>> read_log_record(int file, std::uint64_t number);

}  // namespace cellrund::cell
