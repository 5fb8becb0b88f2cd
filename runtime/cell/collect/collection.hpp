// The rules by which the collector takes what a guest hands over: regular files with plain names, each once, within the
// budgets; everything else is listed with why. Nothing that the guest names ever becomes a name on the host: the bytes of
// all files go, one after the other, into one file that is already open.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "cell/collect/answer.hpp"
#include "crypto/digest.hpp"
#include "model/evidence.hpp"
#include "shim/wire/outputs.hpp"

namespace cellrund::cell::collect {

class Collection final : public wire::ArchiveSink {
 public:
  // `data_fd`: an empty file, written with pwrite(2) alone. Borrowed.
  Collection(const Request& request, int data_fd) : request_(request), data_fd_(data_fd) {}

  void file(std::string_view path, std::uint32_t mode, std::uint64_t size) override;
  void data(base::BytesView bytes) override;
  void file_end(bool whole) override;
  void refused(std::string_view path, wire::OutputRefusal why) override;
  void end(std::uint64_t unlisted) override;

  // The first failure to store something on this host: there is no sense in reading on.
  [[nodiscard]] const std::optional<std::string>& failure() const noexcept { return failure_; }
  // Once, at the end. A file that was not ended is refused. Postcondition: the data file holds exactly the taken files.
  model::OutputFacts finish(std::string incomplete_because);

 private:
  std::optional<std::string_view> problem(std::string_view path, std::uint32_t mode, std::uint64_t size) const;
  void refuse(std::string_view path, std::string_view why);

  Request request_;
  int data_fd_;
  model::OutputFacts facts_;
  std::set<std::string, std::less<>> files_;
  std::set<std::string, std::less<>> folders_;  // every folder that a taken file is in
  std::uint64_t taken_bytes_ = 0;
  std::uint64_t path_bytes_ = 0;
  // The file at hand.
  bool open_ = false;
  bool taking_ = false;
  std::string path_;
  std::uint64_t size_ = 0;
  std::uint64_t written_ = 0;
  crypto::Sha256 hash_;
  std::optional<std::string> failure_;
};

// How many bytes an archive within these budgets can have; a guest that sends more is not read any further.
[[nodiscard]] std::uint64_t archive_limit(const Request& request) noexcept;

}  // namespace cellrund::cell::collect
