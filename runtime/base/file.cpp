#include "base/file.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>

namespace cellrund::base {
namespace {

std::string parent_of(const std::string& path) {
  const std::size_t slash = path.find_last_of('/');
  if (slash == std::string::npos) {
    return ".";
  }
  return slash == 0 ? "/" : path.substr(0, slash);
}

Status sync_dir(const std::string& path) {
  const UniqueFd dir = CR_TRY(open_file(path, O_RDONLY | O_DIRECTORY));
  if (::fsync(dir.get()) != 0) {
    return Error::from_errno("fsync " + path);
  }
  return ok();
}

}  // namespace

Result<UniqueFd> open_file(const std::string& path, int flags, unsigned mode) {
  return open_at(AT_FDCWD, path, flags, mode);
}

Result<UniqueFd> open_at(int dir_fd, const std::string& name, int flags, unsigned mode) {
  int fd = -1;
  do {
    fd = ::openat(dir_fd, name.c_str(), flags | O_CLOEXEC, static_cast<mode_t>(mode));
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) {
    return Error::from_errno("open " + name);
  }
  return UniqueFd(fd);
}

Result<std::string> read_fd(int fd, std::size_t limit) {
  std::string out;
  std::array<char, 16384> buffer{};
  for (;;) {
    const ssize_t n = ::read(fd, buffer.data(), buffer.size());
    if (n < 0) {
      if (errno == EINTR) {
        continue;
      }
      return Error::from_errno("read");
    }
    if (n == 0) {
      return out;
    }
    if (out.size() + static_cast<std::size_t>(n) > limit) {
      return Error(Errc::kResourceExhausted, "longer than the limit of " + std::to_string(limit) + " bytes");
    }
    out.append(buffer.data(), static_cast<std::size_t>(n));
  }
}

Result<std::string> read_file(const std::string& path, std::size_t limit) {
  const UniqueFd fd = CR_TRY(open_file(path, O_RDONLY));
  return read_fd(fd.get(), limit).context("read " + path);
}

Status write_all(int fd, BytesView bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0) {
      if (errno == EINTR) {
        continue;
      }
      return Error::from_errno("write");
    }
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
  return ok();
}

Status write_file_atomic(const std::string& path, std::string_view content, unsigned mode) {
  const std::string temporary = path + ".new";
  {
    const UniqueFd fd = CR_TRY(open_file(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, mode));
    if (::fchmod(fd.get(), static_cast<mode_t>(mode)) != 0) {
      return Error::from_errno("fchmod " + temporary);
    }
    CR_CHECK(write_all(fd.get(), as_bytes(content)).context("write " + temporary));
    if (::fsync(fd.get()) != 0) {
      return Error::from_errno("fsync " + temporary);
    }
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) {
    return Error::from_errno("rename to " + path);
  }
  return sync_dir(parent_of(path));
}

Status write_kernel_file(const std::string& path, std::string_view content) {
  const UniqueFd fd = CR_TRY(open_file(path, O_WRONLY));
  return write_all(fd.get(), as_bytes(content)).context(path);
}

Status make_dir(const std::string& path, unsigned mode) {
  if (::mkdir(path.c_str(), static_cast<mode_t>(mode)) == 0) {
    return ok();
  }
  const int err = errno;
  struct stat st {};
  if (err == EEXIST && ::stat(path.c_str(), &st) == 0 && S_ISDIR(st.st_mode)) {
    return ok();
  }
  return Error::from_errno("mkdir " + path, err);
}

Status make_dirs(const std::string& path, unsigned mode) {
  for (std::size_t at = path.find('/', 1); at != std::string::npos; at = path.find('/', at + 1)) {
    CR_CHECK(make_dir(path.substr(0, at), mode));
  }
  return make_dir(path, mode);
}

Status remove_file(const std::string& path) {
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
    return Error::from_errno("unlink " + path);
  }
  return ok();
}

Status remove_dir(const std::string& path) {
  if (::rmdir(path.c_str()) != 0 && errno != ENOENT) {
    return Error::from_errno("rmdir " + path);
  }
  return ok();
}

bool exists(const std::string& path) noexcept {
  struct stat st {};
  return ::lstat(path.c_str(), &st) == 0;
}

Result<FileId> file_id(const std::string& path) {
  struct stat st {};
  if (::stat(path.c_str(), &st) != 0) {
    return Error::from_errno("stat " + path);
  }
  return FileId{st.st_dev, st.st_ino};
}

Result<FileId> file_id(int fd) {
  struct stat st {};
  if (::fstat(fd, &st) != 0) {
    return Error::from_errno("fstat");
  }
  return FileId{st.st_dev, st.st_ino};
}

Result<std::vector<std::string>> list_dir(const std::string& path, std::size_t limit) {
  UniqueFd fd = CR_TRY(open_file(path, O_RDONLY | O_DIRECTORY));
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(::fdopendir(fd.get()), &::closedir);
  if (!dir) {
    return Error::from_errno("fdopendir " + path);
  }
  (void)fd.release();  // owned by dir now
  std::vector<std::string> names;
  for (;;) {
    errno = 0;
    const dirent* entry = ::readdir(dir.get());
    if (entry == nullptr) {
      if (errno != 0) {
        return Error::from_errno("readdir " + path);
      }
      return names;
    }
    const std::string_view name(entry->d_name);
    if (name == "." || name == "..") {
      continue;
    }
    if (names.size() >= limit) {
      return Error(Errc::kResourceExhausted, path + " has more than " + std::to_string(limit) + " entries");
    }
    names.emplace_back(name);
  }
}

Result<UniqueFd> sealed_memfd(const char* name, BytesView content) {
  UniqueFd fd(::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) {
    return Error::from_errno("memfd_create");
  }
  CR_CHECK(write_all(fd.get(), content).context("fill memfd"));
  if (::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) != 0) {
    return Error::from_errno("fcntl F_ADD_SEALS");
  }
  if (::lseek(fd.get(), 0, SEEK_SET) < 0) {
    return Error::from_errno("lseek");
  }
  return fd;
}

Result<bool> wait_readable(int fd, Deadline deadline) {
  for (;;) {
    pollfd p{fd, POLLIN, 0};
    const int n = ::poll(&p, 1, deadline.poll_timeout_ms());
    if (n > 0) {
      return true;
    }
    if (n == 0) {
      return false;
    }
    if (errno != EINTR) {
      return Error::from_errno("poll");
    }
  }
}

}  // namespace cellrund::base
