#include "cell/log_store.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "crypto/digest.hpp"

namespace cellrund::cell {
namespace {

using base::Error;

constexpr std::array<const char*, 2> kNames{"stdout", "stderr"};
constexpr const char* kIndex = "/index";

std::string path_of(const std::string& folder, Stream stream) {
  return folder + "/" + kNames[static_cast<std::size_t>(stream)];
}

std::uint64_t size_of(const std::string& path) noexcept {
  struct stat st {};
  return ::stat(path.c_str(), &st) == 0 ? static_cast<std::uint64_t>(st.st_size) : 0;
}

// Feeds `bytes` bytes of `file` from `offset` on to `take`; false when the file ends before.
template <typename Take>
base::Result<bool> each_block(int file, std::uint64_t offset, std::uint64_t bytes, Take&& take) {
  std::array<std::uint8_t, 65536> buffer{};
  while (bytes > 0) {
    const ssize_t n = ::pread(file, buffer.data(), std::min<std::uint64_t>(buffer.size(), bytes), static_cast<off_t>(offset));
    if (n < 0) {
      return Error::from_errno("read the job's log");
    }
    if (n == 0) {
      return false;
    }
    take(base::BytesView(buffer.data(), static_cast<std::size_t>(n)));
    offset += static_cast<std::uint64_t>(n);
    bytes -= static_cast<std::uint64_t>(n);
  }
  return true;
}

base::Result<std::string> digest_of(const std::string& folder) {
  crypto::Sha256 hash;
  for (const Stream stream : {Stream::kStdout, Stream::kStderr}) {
    const std::string path = path_of(folder, stream);
    const base::UniqueFd file = CR_TRY(base::open_file(path, O_RDONLY | O_NOFOLLOW));
    (void)CR_TRY(each_block(file.get(), 0, size_of(path), [&](base::BytesView bytes) { hash.update(bytes); }));
  }
  return crypto::digest_text(hash.finish());
}

base::Status cut_file(const std::string& path, std::uint64_t size) {
  if (size_of(path) > size && ::truncate(path.c_str(), static_cast<off_t>(size)) != 0) {
    return Error::from_errno("cut " + path);
  }
  return base::ok();
}

}  // namespace

std::string log_folder(const std::string& state_dir, const std::string& uid) { return state_dir + "/logs/" + uid; }

base::Result<LogStore> LogStore::create(const std::string& folder, std::uint64_t max_bytes) {
  CR_CHECK(base::make_dirs(folder, 0700));
  std::array<base::UniqueFd, 2> files;
  for (std::size_t i = 0; i < files.size(); ++i) {
    files[i] = CR_TRY(base::open_file(folder + "/" + kNames[i], O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_NOFOLLOW, 0600));
  }
  return LogStore(folder, max_bytes, std::move(files), CR_TRY(LogIndex::create(folder + kIndex)));
}

base::Result<std::size_t> LogStore::append(Stream stream, base::BytesView bytes) {
  const std::size_t room = static_cast<std::size_t>(std::min<std::uint64_t>(bytes.size(), max_bytes_ - stored_));
  const bool cut_now = room < bytes.size() && !truncated_;
  truncated_ = truncated_ || cut_now;
  if (room > 0) {
    const auto at = static_cast<std::size_t>(stream);
    auto written = base::write_all(files_[at].get(), bytes.first(room)).context("append to the job's log");
    if (written.ok()) {
      written = index_.add(stream, bytes.first(room), base::WallTime::now());
    }
    if (!written.ok()) {
      (void)!::ftruncate(files_[at].get(), static_cast<off_t>(sizes_[at]));  // no bytes that no record vouches for
      return std::move(written).error();
    }
    sizes_[at] += room;
    stored_ += room;
  }
  if (cut_now) {
    CR_CHECK(index_.mark_cut(base::WallTime::now()));
  }
  return room;
}

base::Result<model::LogFacts> LogStore::finish() {
  return model::LogFacts{.sha256 = CR_TRY(digest_of(folder_)), .bytes = stored_, .truncated = truncated_};
}

base::Result<std::string> read_log(const std::string& folder, Stream stream, std::uint64_t offset, std::size_t limit) {
  const base::UniqueFd file = CR_TRY(base::open_file(path_of(folder, stream), O_RDONLY | O_NOFOLLOW));
  std::string out(limit, '\0');
  const ssize_t n = ::pread(file.get(), out.data(), out.size(), static_cast<off_t>(offset));
  if (n < 0) {
    return Error::from_errno("read the job's log");
  }
  out.resize(static_cast<std::size_t>(n));
  return out;
}

base::Status remove_logs(const std::string& folder) {
  for (const char* name : kNames) {
    CR_CHECK(base::remove_file(folder + "/" + name));
  }
  CR_CHECK(base::remove_file(folder + kIndex));
  return base::remove_dir(folder);
}

std::uint64_t stored_log_bytes(const std::string& folder) noexcept {
  return size_of(path_of(folder, Stream::kStdout)) + size_of(path_of(folder, Stream::kStderr));
}

bool log_was_cut(const std::string& folder) noexcept {
  const std::uint64_t count = size_of(folder + kIndex) / kLogRecordBytes;
  auto file = base::open_file(folder + kIndex, O_RDONLY | O_NOFOLLOW);
  if (count == 0 || !file.ok()) {
    return false;
  }
  const auto last = read_log_record(file->get(), count - 1);
  return last.ok() && last->has_value() && (*last)->kind == LogRecord::Kind::kCut;
}

base::Result<std::optional<LogPiece>> read_log_piece(const std::string& folder, LogCursor& cursor, std::size_t limit) {
  const base::UniqueFd index = CR_TRY(base::open_file(folder + kIndex, O_RDONLY | O_NOFOLLOW));
  const auto piece = [&](Stream stream, std::uint64_t most) -> base::Result<std::optional<LogPiece>> {
    std::uint64_t& offset = cursor.offsets[static_cast<std::size_t>(stream)];
    LogPiece out{stream, offset, cursor.wall_ns, CR_TRY(read_log(folder, stream, offset, std::min<std::uint64_t>(limit, most)))};
    offset += out.data.size();
    return out.data.empty() ? std::nullopt : std::optional(std::move(out));
  };
  for (;;) {
    const auto record = CR_TRY(read_log_record(index.get(), cursor.record));
    if (!record.has_value() || record->kind == LogRecord::Kind::kCut) {
      break;
    }
    if (cursor.within < record->bytes) {
      cursor.wall_ns = record->wall_ns;
      const Stream stream = record->kind == LogRecord::Kind::kStdout ? Stream::kStdout : Stream::kStderr;
      auto out = CR_TRY(piece(stream, record->bytes - cursor.within));
      cursor.within += out.has_value() ? out->data.size() : 0;
      return out;
    }
    // The last one may still grow, also between the two looks; once it has a successor it does not.
    if (const auto next = CR_TRY(read_log_record(index.get(), cursor.record + 1)); !next.has_value()) {
      break;
    }
    if (const auto last = CR_TRY(read_log_record(index.get(), cursor.record)); last.has_value() && cursor.within < last->bytes) {
      continue;
    }
    ++cursor.record;
    cursor.within = 0;
  }
  if (cursor.record + 1 < kMaxLogRecords) {
    return std::optional<LogPiece>();
  }
  for (const Stream stream : {Stream::kStdout, Stream::kStderr}) {
    if (auto out = CR_TRY(piece(stream, limit)); out.has_value()) {
      return out;
    }
  }
  return std::optional<LogPiece>();
}

base::Result<model::LogFacts> repair_log(const std::string& folder) {
  const base::UniqueFd index = CR_TRY(base::open_file(folder + kIndex, O_RDONLY | O_NOFOLLOW));
  std::array<base::UniqueFd, 2> files;
  for (const Stream stream : {Stream::kStdout, Stream::kStderr}) {
    files[static_cast<std::size_t>(stream)] = CR_TRY(base::open_file(path_of(folder, stream), O_RDONLY | O_NOFOLLOW));
  }
  std::array<std::uint64_t, 2> sizes{};
  std::uint64_t count = 0;
  bool cut = false;
  for (; !cut; ++count) {
    const auto record = CR_TRY(read_log_record(index.get(), count));
    if (!record.has_value()) {
      break;
    }
    if (record->kind == LogRecord::Kind::kCut) {
      cut = true;
      continue;
    }
    const auto stream = static_cast<std::size_t>(record->kind);
    std::uint32_t crc = 0;
    const bool whole = CR_TRY(each_block(files[stream].get(), sizes[stream], record->bytes,
                                         [&](base::BytesView bytes) { crc = extend_crc(crc, bytes); }));
    if (!whole || crc != record->crc) {
      break;
    }
    sizes[stream] += record->bytes;
  }
  CR_CHECK(cut_file(folder + kIndex, count * kLogRecordBytes));
  if (count < kMaxLogRecords) {  // beyond a full index the files speak for themselves
    for (const Stream stream : {Stream::kStdout, Stream::kStderr}) {
      CR_CHECK(cut_file(path_of(folder, stream), sizes[static_cast<std::size_t>(stream)]));
    }
  }
  return model::LogFacts{.sha256 = CR_TRY(digest_of(folder)), .bytes = stored_log_bytes(folder), .truncated = cut};
}

}  // namespace cellrund::cell
