#include "cell/collect/collection.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>

#include "base/log.hpp"

namespace cellrund::cell::collect {
namespace {

// Heads, names, and the bytes of files that are refused for their name: far more than an honest guest sends.
constexpr std::uint64_t kArchiveSlack = 32ULL << 20U;
constexpr std::string_view kTwice = "a second one of this name";
constexpr std::string_view kFolderAndFile = "a folder and a file of one name";
constexpr std::string_view kCutShort = "cut short";

// A path fit for a record and a terminal, within kMaxRefusedPath.
std::string printable(std::string_view path) {
  if (path.size() <= kMaxRefusedPath && wire::is_plain_utf8(path)) {
    return std::string(path);
  }
  constexpr std::size_t kQuotedBytes = 60;  // four characters each at most, and the quotes
  return base::log::quoted(path, kQuotedBytes);
}

std::optional<wire::OutputRefusal> type_problem(std::uint32_t mode) {
  switch (mode & S_IFMT) {
    case S_IFREG: return std::nullopt;
    case S_IFLNK: return wire::OutputRefusal::kSymlink;
    case S_IFIFO: return wire::OutputRefusal::kFifo;
    case S_IFSOCK: return wire::OutputRefusal::kSocket;
    case S_IFCHR:
    case S_IFBLK: return wire::OutputRefusal::kDevice;
    default: return wire::OutputRefusal::kOtherType;
  }
}

}  // namespace

std::uint64_t archive_limit(const Request& request) noexcept { return 2 * request.max_bytes + kArchiveSlack; }

std::optional<std::string_view> Collection::problem(std::string_view path, std::uint32_t mode, std::uint64_t size) const {
  if (const auto why = wire::path_problem(path)) {
    return to_string(*why);
  }
  if (const auto why = type_problem(mode)) {
    return to_string(*why);
  }
  if (files_.contains(path)) {
    return kTwice;
  }
  if (folders_.contains(path)) {
    return kFolderAndFile;
  }
  for (std::size_t slash = path.find('/'); slash != std::string_view::npos; slash = path.find('/', slash + 1)) {
    if (files_.contains(path.substr(0, slash))) {
      return kFolderAndFile;
    }
  }
  if (files_.size() >= request_.max_files) {
    return to_string(wire::OutputRefusal::kFiles);
  }
  if (size > request_.max_bytes - taken_bytes_) {
    return to_string(wire::OutputRefusal::kBytes);
  }
  if (path.size() > wire::kMaxOutputPaths - path_bytes_) {
    return to_string(wire::OutputRefusal::kPaths);
  }
  return std::nullopt;
}

void Collection::refuse(std::string_view path, std::string_view why) {
  if (facts_.refused_count < static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
    ++facts_.refused_count;
  }
  if (facts_.refused.size() < kMaxListed) {
    facts_.refused.push_back({printable(path), std::string(why)});
  }
}

void Collection::file(std::string_view path, std::uint32_t mode, std::uint64_t size) {
  open_ = true;
  path_ = path;
  size_ = size;
  written_ = 0;
  hash_ = crypto::Sha256();
  const auto why = problem(path, mode, size);
  taking_ = !why.has_value();
  if (!taking_) {
    refuse(path, *why);
  }
}

void Collection::data(base::BytesView bytes) {
  if (!taking_ || failure_.has_value()) {
    return;
  }
  if (bytes.size() > size_ - written_) {
    taking_ = false;
    refuse(path_, to_string(wire::OutputRefusal::kChanged));
    return;
  }
  hash_.update(bytes);
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(data_fd_, bytes.data(), bytes.size(), static_cast<off_t>(taken_bytes_ + written_));
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n <= 0) {
      failure_ = base::Error::from_errno("store an output").message();
      return;
    }
    written_ += static_cast<std::uint64_t>(n);
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
}

void Collection::file_end(bool whole) {
  open_ = false;
  if (!taking_ || failure_.has_value()) {
    return;
  }
  taking_ = false;
  if (!whole || written_ != size_) {
    refuse(path_, to_string(wire::OutputRefusal::kChanged));
    return;
  }
  facts_.files.push_back({path_, size_, crypto::digest_text(hash_.finish())});
  taken_bytes_ += size_;
  path_bytes_ += path_.size();
  for (std::size_t slash = path_.find('/'); slash != std::string::npos; slash = path_.find('/', slash + 1)) {
    folders_.insert(path_.substr(0, slash));
  }
  files_.insert(std::move(path_));
}

void Collection::refused(std::string_view path, wire::OutputRefusal why) { refuse(path, to_string(why)); }

void Collection::end(std::uint64_t unlisted) {
  const auto room = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()) - facts_.refused_count;
  facts_.refused_count += std::min(unlisted, room);
}

model::OutputFacts Collection::finish(std::string incomplete_because) {
  if (open_ && taking_) {
    refuse(path_, kCutShort);
  }
  if (failure_.has_value()) {
    incomplete_because = *failure_;
  }
  if (::ftruncate(data_fd_, static_cast<off_t>(taken_bytes_)) != 0) {
    incomplete_because = base::Error::from_errno("cut the outputs").message();
  }
  facts_.incomplete_because = std::move(incomplete_because);
  return std::move(facts_);
}

}  // namespace cellrund::cell::collect
