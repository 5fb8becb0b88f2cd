#include "shim/guest/paths.hpp"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/file.hpp"

namespace cellrund::guest {

using base::Errc;
using base::Error;

base::Status mount_at(const std::string& source, const std::string& target, const std::string& type,
                      unsigned long flags, const std::string& data) {
  const auto or_null = [](const std::string& s) { return s.empty() ? nullptr : s.c_str(); };
  if (::mount(or_null(source), target.c_str(), or_null(type), flags, or_null(data)) != 0) {
    return Error::from_errno("mount " + (type.empty() ? std::string("change") : type) + " at " + target);
  }
  return base::ok();
}

base::Result<base::UniqueFd> open_dir(const std::string& path, unsigned mode) {
  base::UniqueFd dir(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!dir) {
    return Error::from_errno("open /");
  }
  std::size_t begin = 1;
  while (begin < path.size()) {
    const std::size_t slash = std::min(path.find('/', begin), path.size());
    const std::string part = path.substr(begin, slash - begin);
    begin = slash + 1;
    constexpr int kFlags = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    base::UniqueFd next(::openat(dir.get(), part.c_str(), kFlags));
    if (!next && errno == ENOENT) {
      if (::mkdirat(dir.get(), part.c_str(), mode) != 0) {
        return Error::from_errno("mkdir " + path);
      }
      next.reset(::openat(dir.get(), part.c_str(), kFlags));
    }
    if (!next) {
      if (errno == ENOTDIR || errno == ELOOP) {
        return Error(Errc::kInvalidArgument, "image: " + path + ": " + part + " is a symbolic link or no directory");
      }
      return Error::from_errno("open " + path);
    }
    dir = std::move(next);
  }
  return dir;
}

base::Status ensure_dir(const std::string& path, unsigned mode) {
  CR_TRY(open_dir(path, mode));
  return base::ok();
}

base::Status place_file(const wire::FileEntry& file) {
  const std::size_t slash = file.path.rfind('/');
  const std::string name = file.path.substr(slash + 1);
  const base::UniqueFd dir = CR_TRY(open_dir(slash == 0 ? "/" : file.path.substr(0, slash), 0755));
  if (::unlinkat(dir.get(), name.c_str(), 0) != 0 && errno != ENOENT) {
    return Error::from_errno("replace " + file.path);
  }
  const base::UniqueFd fd(::openat(dir.get(), name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, file.mode));
  if (!fd) {
    return Error::from_errno("create " + file.path);
  }
  return base::write_all(fd.get(), base::as_bytes(file.content)).context("write " + file.path);
}

}  // namespace cellrund::guest
