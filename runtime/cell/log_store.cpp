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

const char* name_of(Stream stream) { return kNames[static_cast<std::size_t>(stream)]; }

}  // namespace

std::string log_folder(const std::string& state_dir, const std::string& uid) { return state_dir + "/logs/" + uid; }

base::Result<LogStore> LogStore::create(const std::string& folder, std::uint64_t max_bytes) {
  CR_CHECK(base::make_dirs(folder, 0700));
  std::array<base::UniqueFd, 2> files;
  for (std::size_t i = 0; i < files.size(); ++i) {
    files[i] = CR_TRY(base::open_file(folder + "/" + kNames[i], O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_NOFOLLOW, 0600));
  }
  return LogStore(folder, max_bytes, std::move(files));
}

base::Result<std::size_t> LogStore::append(Stream stream, base::BytesView bytes) {
  const std::size_t room = static_cast<std::size_t>(std::min<std::uint64_t>(bytes.size(), max_bytes_ - stored_));
  if (room < bytes.size()) {
    truncated_ = true;
  }
  if (room == 0) {
    return std::size_t{0};
  }
  CR_CHECK(base::write_all(files_[static_cast<std::size_t>(stream)].get(), bytes.first(room)).context("append to the job's log"));
  stored_ += room;
  return room;
}

base::Result<model::LogFacts> LogStore::finish() {
  crypto::Sha256 hash;
  std::array<std::uint8_t, 65536> buffer{};
  for (const char* name : kNames) {
    const base::UniqueFd file = CR_TRY(base::open_file(folder_ + "/" + name, O_RDONLY | O_NOFOLLOW));
    for (;;) {
      const ssize_t n = ::read(file.get(), buffer.data(), buffer.size());
      if (n < 0) {
        return Error::from_errno("read the job's log");
      }
      if (n == 0) {
        break;
      }
      hash.update({buffer.data(), static_cast<std::size_t>(n)});
    }
  }
  return model::LogFacts{.sha256 = crypto::digest_text(hash.finish()), .bytes = stored_, .truncated = truncated_};
}

base::Result<std::string> read_log(const std::string& folder, Stream stream, std::uint64_t offset, std::size_t limit) {
  const base::UniqueFd file = CR_TRY(base::open_file(folder + "/" + name_of(stream), O_RDONLY | O_NOFOLLOW));
  std::string out(limit, '\0');
  const ssize_t n = ::pread(file.get(), out.data(), out.size(), static_cast<off_t>(offset));
  if (n < 0) {
    return Error::from_errno("read the job's log");
  }
  out.resize(static_cast<std::size_t>(n));
  return out;
}

std::uint64_t stored_log_bytes(const std::string& folder) noexcept {
  std::uint64_t total = 0;
  for (const char* name : kNames) {
    struct stat st {};
    if (::stat((folder + "/" + name).c_str(), &st) == 0) {
      total += static_cast<std::uint64_t>(st.st_size);
    }
  }
  return total;
}

}  // namespace cellrund::cell
