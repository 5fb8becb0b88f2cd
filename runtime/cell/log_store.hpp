// The stored output of one job: two append-only files under <state>/logs/<uid>/, bounded together.
// Written by the job's cell thread alone; read by any thread through read_log().
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "base/fd.hpp"
#include "base/file.hpp"
#include "base/result.hpp"
#include "cell/node.hpp"
#include "model/evidence.hpp"

namespace cellrund::cell {

class LogStore {
 public:
  // Creates the folder (0700) and both files (0600), empty.
  static base::Result<LogStore> create(const std::string& folder, std::uint64_t max_bytes);

  // Stores what still fits and drops the rest; `truncated` in facts() says so. Returns the bytes stored.
  base::Result<std::size_t> append(Stream stream, base::BytesView bytes);
  [[nodiscard]] std::uint64_t bytes() const noexcept { return stored_; }
  // Digest over stdout then stderr as stored. Call once, after the last append.
  base::Result<model::LogFacts> finish();

 private:
  LogStore(std::string folder, std::uint64_t max_bytes, std::array<base::UniqueFd, 2> files)
      : folder_(std::move(folder)), max_bytes_(max_bytes), files_(std::move(files)) {}
  std::string folder_;
  std::uint64_t max_bytes_;
  std::array<base::UniqueFd, 2> files_;
  std::uint64_t stored_ = 0;
  bool truncated_ = false;
};

[[nodiscard]] std::string log_folder(const std::string& state_dir, const std::string& uid);
// kNotFound when the job stored no log.
base::Result<std::string> read_log(const std::string& folder, Stream stream, std::uint64_t offset, std::size_t limit);
// Bytes stored so far in both files; 0 when there are none.
[[nodiscard]] std::uint64_t stored_log_bytes(const std::string& folder) noexcept;

}  // namespace cellrund::cell
