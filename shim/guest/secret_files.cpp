#include "shim/guest/secret_files.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>

namespace cellrund::guest {

using base::Errc;
using base::Error;

base::Status SecretFiles::add(const wire::SecretPiece& piece) {
  if (!file_) {
    file_ = CR_TRY(base::open_at(folder_.get(), piece.name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0).context("secret"));
    name_ = piece.name;
  } else if (name_ != piece.name) {
    return Error(Errc::kFailedPrecondition, "secret " + piece.name + " begins within " + name_);
  }
  CR_CHECK(base::write_all(file_.get(), piece.bytes).context("write secret " + name_));
  if (piece.last) {
    if (::fchown(file_.get(), uid_, gid_) != 0 || ::fchmod(file_.get(), S_IRUSR) != 0) {
      return Error::from_errno("give secret " + name_ + " to the workload");
    }
    file_.reset();
  }
  return base::ok();
}

base::Status SecretFiles::remove(const std::string& name) {
  auto file = base::open_at(folder_.get(), name, O_WRONLY | O_NOFOLLOW);
  if (!file.ok()) {
    return file.error().os_errno() == ENOENT ? base::ok() : base::Status(std::move(file).error());
  }
  struct stat info {};
  if (::fstat(file->get(), &info) != 0) {
    return Error::from_errno("stat secret " + name);
  }
  constexpr std::array<std::uint8_t, 4096> kZeroes{};
  for (off_t at = 0; at < info.st_size; at += static_cast<off_t>(kZeroes.size())) {
    CR_CHECK(base::write_all(file->get(), kZeroes).context("overwrite secret " + name));
  }
  if (::ftruncate(file->get(), 0) != 0 || ::unlinkat(folder_.get(), name.c_str(), 0) != 0) {
    return Error::from_errno("remove secret " + name);
  }
  return base::ok();
}

}  // namespace cellrund::guest
