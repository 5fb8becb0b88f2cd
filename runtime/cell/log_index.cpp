#include "cell/log_index.hpp"

#include <fcntl.h>
#include <unistd.h>
#include <zlib.h>

#include <cerrno>
#include <limits>
#include <type_traits>

namespace cellrund::cell {
namespace {

using base::Error;

constexpr std::int64_t kSecond = 1'000'000'000;

template <typename T>
void store(std::uint8_t* at, T value) {
  for (std::size_t i = 0; i < sizeof(T); ++i) {
    at[i] = static_cast<std::uint8_t>(static_cast<std::make_unsigned_t<T>>(value) >> (8 * i));
  }
}

template <typename T>
T load(const std::uint8_t* at) {
  std::make_unsigned_t<T> value = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i) {
    value |= static_cast<std::make_unsigned_t<T>>(static_cast<std::make_unsigned_t<T>>(at[i]) << (8 * i));
  }
  return static_cast<T>(value);
}

std::int64_t nanoseconds(base::WallTime at) { return at.seconds * kSecond + at.nanos; }

}  // namespace

std::uint32_t extend_crc(std::uint32_t crc, base::BytesView bytes) {
  return static_cast<std::uint32_t>(::crc32_z(crc, bytes.data(), bytes.size()));
}

std::array<std::uint8_t, kLogRecordBytes> encode(const LogRecord& record) {
  std::array<std::uint8_t, kLogRecordBytes> out{};
  out[0] = static_cast<std::uint8_t>(record.kind);
  store(&out[4], record.bytes);
  store(&out[8], record.wall_ns);
  store(&out[16], record.crc);
  store(&out[20], extend_crc(0, base::BytesView(out).first(20)));
  return out;
}

std::optional<LogRecord> decode_log_record(base::BytesView bytes) {
  if (bytes.size() != kLogRecordBytes || bytes[0] > 2 || load<std::uint32_t>(&bytes[20]) != extend_crc(0, bytes.first(20))) {
    return std::nullopt;
  }
  return LogRecord{.kind = static_cast<LogRecord::Kind>(bytes[0]),
                   .bytes = load<std::uint32_t>(&bytes[4]),
                   .wall_ns = load<std::int64_t>(&bytes[8]),
                   .crc = load<std::uint32_t>(&bytes[16])};
}

base::Result<LogIndex> LogIndex::create(const std::string& path) {
  return LogIndex(CR_TRY(base::open_file(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0600)));
}

base::Status LogIndex::put(const LogRecord& record, std::uint64_t number) {
  const auto bytes = encode(record);
  const ssize_t n = ::pwrite(file_.get(), bytes.data(), bytes.size(), static_cast<off_t>(number * kLogRecordBytes));
  if (n != static_cast<ssize_t>(bytes.size())) {
    return Error::from_errno("append to the job's log index", n < 0 ? errno : ENOSPC);
  }
  return base::ok();
}

base::Status LogIndex::add(Stream stream, base::BytesView bytes, base::WallTime now) {
  const auto kind = stream == Stream::kStdout ? LogRecord::Kind::kStdout : LogRecord::Kind::kStderr;
  const std::int64_t at = nanoseconds(now);
  const bool joins = count_ > 0 && last_.kind == kind && at >= last_.wall_ns &&
                     at - last_.wall_ns < base::Nanoseconds(kLogPieceSpan).count() &&
                     bytes.size() <= std::numeric_limits<std::uint32_t>::max() - last_.bytes;
  if (!joins && count_ >= kMaxLogRecords) {
    return base::ok();
  }
  const LogRecord record{.kind = kind,
                         .bytes = static_cast<std::uint32_t>(bytes.size()) + (joins ? last_.bytes : 0),
                         .wall_ns = joins ? last_.wall_ns : at,
                         .crc = extend_crc(joins ? last_.crc : 0, bytes)};
  CR_CHECK(put(record, joins ? count_ - 1 : count_));
  count_ += joins ? 0 : 1;
  last_ = record;
  return base::ok();
}

base::Status LogIndex::mark_cut(base::WallTime now) {
  return put({.kind = LogRecord::Kind::kCut, .bytes = 0, .wall_ns = nanoseconds(now), .crc = 0}, count_);
}

base::Result<std::optional<LogRecord>> read_log_record(int file, std::uint64_t number) {
  std::array<std::uint8_t, kLogRecordBytes> bytes{};
  const ssize_t n = ::pread(file, bytes.data(), bytes.size(), static_cast<off_t>(number * kLogRecordBytes));
  if (n < 0) {
    return Error::from_errno("read the job's log index");
  }
  if (n != static_cast<ssize_t>(bytes.size())) {
    return std::optional<LogRecord>();
  }
  return decode_log_record(bytes);
}

}  // namespace cellrund::cell
