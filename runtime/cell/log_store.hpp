// The stored output of one job: two append-only files under <state>/logs/<uid>/, bounded together, and their index
// (cell/log_index.hpp). Written by the job's cell thread alone; read by any thread through the functions below.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "base/fd.hpp"
#include "base/file.hpp"
#include "base/result.hpp"
#include "cell/log_index.hpp"
#include "cell/node.hpp"
#include "model/evidence.hpp"

namespace cellrund::cell {

class LogStore {
 public:
  // Creates the folder (0700) and the files (0600), empty.
  static base::Result<LogStore> create(const std::string& folder, std::uint64_t max_bytes);

  // Stores what still fits and drops the rest; truncated() says so from then on. Returns the bytes stored.
  base::Result<std::size_t> append(Stream stream, base::BytesView bytes);
  [[nodiscard]] std::uint64_t bytes() const noexcept { return stored_; }
  [[nodiscard]] bool truncated() const noexcept { return truncated_; }
  // Digest over stdout then stderr as stored. Call once, after the last append.
  base::Result<model::LogFacts> finish();

 private:
  LogStore(std::string folder, std::uint64_t max_bytes, std::array<base::UniqueFd, 2> files, LogIndex index)
      : folder_(std::move(folder)), max_bytes_(max_bytes), files_(std::move(files)), index_(std::move(index)) {}
  std::string folder_;
  std::uint64_t max_bytes_;
  std::array<base::UniqueFd, 2> files_;
  LogIndex index_;
  std::array<std::uint64_t, 2> sizes_{};
  std::uint64_t stored_ = 0;
  bool truncated_ = false;
};

[[nodiscard]] std::string log_folder(const std::string& state_dir, const std::string& uid);
// kNotFound when the job stored no log.
base::Result<std::string> read_log(const std::string& folder, Stream stream, std::uint64_t offset, std::size_t limit);
// The folder and all that is in it; what is missing is success.
base::Status remove_logs(const std::string& folder);
// Bytes stored so far in both files; 0 when there are none.
[[nodiscard]] std::uint64_t stored_log_bytes(const std::string& folder) noexcept;
// Whether output was dropped because the log was full.
[[nodiscard]] bool log_was_cut(const std::string& folder) noexcept;
// The next piece at `cursor`, at most `limit` bytes of it, and moves the cursor past it; nullopt at the present end.
base::Result<std::optional<LogPiece>> read_log_piece(const std::string& folder, LogCursor& cursor, std::size_t limit);
// After a crash of the daemon: cuts index and files back to what whole records vouch for, and says what the log then is.
// kNotFound when the job stored none.
base::Result<model::LogFacts> repair_log(const std::string& folder);

}  // namespace cellrund::cell
