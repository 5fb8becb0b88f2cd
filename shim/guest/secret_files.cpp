#include "shim/guest/secret_files.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace cellrund::guest {

using base::Errc;
using base::Error;

base::Status SecretFiles::add(const wire::SecretPiece& piece) {
  if (!pending_) {
    files_.push_back({piece.name, CR_TRY(base::open_at(folder_.get(), piece.name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0)
                                             .context("secret"))});
    pending_ = true;
  } else if (files_.back().name != piece.name) {
    return Error(Errc::kFailedPrecondition, "secret " + piece.name + " begins within " + files_.back().name);
  }
  File& file = files_.back();
  CR_CHECK(base::write_all(file.fd.get(), piece.bytes).context("write secret " + file.name));
  file.size += piece.bytes.size();
  if (piece.last) {
    if (::fchown(file.fd.get(), uid_, gid_) != 0 || ::fchmod(file.fd.get(), S_IRUSR) != 0) {
      return Error::from_errno("give secret " + file.name + " to the workload");
    }
    pending_ = false;
  }
  return base::ok();
}

base::Status SecretFiles::remove(const std::string& name) {
  const auto file = std::find_if(files_.begin(), files_.end(), [&](const File& one) { return one.name == name; });
  if (file == files_.end()) {
    return base::ok();
  }
  // By descriptor: root in the guest may have given the name to something else. What it has cut off need not be overwritten.
  constexpr std::array<std::uint8_t, 4096> kZeroes{};
  for (std::size_t at = 0; at < file->size; at += kZeroes.size()) {
    if (::pwrite(file->fd.get(), kZeroes.data(), std::min(kZeroes.size(), file->size - at), static_cast<off_t>(at)) < 0) {
      break;  // it is emptied all the same
    }
  }
  if (::ftruncate(file->fd.get(), 0) != 0) {
    return Error::from_errno("empty secret " + name);
  }
  (void)::unlinkat(folder_.get(), name.c_str(), 0);  // an empty file may stay where root has hidden it
  files_.erase(file);
  return base::ok();
}

}  // namespace cellrund::guest
