#include "shim/guest_images.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <memory>

#include "crypto/digest.hpp"

namespace cellrund::shim {
namespace {

using base::Errc;
using base::Error;
using base::Result;
using base::Status;

constexpr std::uint64_t kMaxImage = 1ULL << 30U;

std::string version_key(const struct stat& st) {
  const auto nanoseconds = [](const timespec& t) { return std::to_string(t.tv_sec * 1'000'000'000LL + t.tv_nsec); };
  return std::to_string(st.st_dev) + "-" + std::to_string(st.st_ino) + "-" + std::to_string(st.st_size) + "-" +
         nanoseconds(st.st_mtim) + "-" + nanoseconds(st.st_ctim);
}

Result<struct stat> stat_of(int fd) {
  struct stat st {};
  if (::fstat(fd, &st) != 0) {
    return Error::from_errno("fstat");
  }
  if (!S_ISREG(st.st_mode) || st.st_size <= 0 || static_cast<std::uint64_t>(st.st_size) > kMaxImage) {
    return Error(Errc::kInvalidArgument, "not a regular file of a sensible size");
  }
  return st;
}

// The digest of `content`, which holds the bytes of the file version `key`.
Result<std::string> cached_digest(const std::string& cache_dir, const std::string& key, int content) {
  const std::string path = cache_dir + "/" + key;
  if (Result<std::string> cached = base::read_file(path, 128); cached.ok() && crypto::is_digest_text(*cached)) {
    return std::move(cached).value();
  }
  std::string digest = CR_TRY(crypto::digest_of_fd(content, kMaxImage));
  CR_CHECK(base::write_file_atomic(path, digest, 0600));
  return digest;
}

Result<base::UniqueFd> copy_to_memory(int file, std::uint64_t size) {
  base::UniqueFd memory(::memfd_create("guest-image", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!memory) {
    return Error::from_errno("memfd_create");
  }
  off_t offset = 0;
  while (static_cast<std::uint64_t>(offset) < size) {
    const ssize_t n = ::sendfile(memory.get(), file, &offset, size - static_cast<std::uint64_t>(offset));
    if (n < 0 && errno != EINTR) {
      return Error::from_errno("copy to memory");
    }
    if (n == 0) {
      return Error(Errc::kDataLoss, "copy to memory: the file became shorter");
    }
  }
  if (::fcntl(memory.get(), F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) != 0) {
    return Error::from_errno("fcntl F_ADD_SEALS");
  }
  return memory;
}

struct Sealed {
  base::UniqueFd fd;
  std::string digest;
};

Result<Sealed> seal_file(const std::string& path, const std::string& cache_dir) {
  const base::UniqueFd file = CR_TRY(base::open_file(path, O_RDONLY));
  const struct stat before = CR_TRY(stat_of(file.get()).context(path));
  Sealed sealed;
  sealed.fd = CR_TRY(copy_to_memory(file.get(), static_cast<std::uint64_t>(before.st_size)).context(path));
  const struct stat after = CR_TRY(stat_of(file.get()).context(path));
  if (version_key(before) != version_key(after)) {
    return Error(Errc::kUnavailable, path + ": changed while it was read");
  }
  sealed.digest = CR_TRY(cached_digest(cache_dir, version_key(before), sealed.fd.get()).context(path));
  return sealed;
}

}  // namespace

Result<GuestImages> load_guest_images(const Config& config) {
  const std::string cache_dir = config.state_dir + "/digests";
  CR_CHECK(base::make_dirs(config.state_dir, 0700));
  CR_CHECK(base::make_dir(cache_dir, 0700));
  GuestImages images;
  Sealed kernel = CR_TRY(seal_file(config.kernel, cache_dir).context("guest kernel"));
  Sealed initrd = CR_TRY(seal_file(config.initrd, cache_dir).context("guest initrd"));
  images.kernel = std::move(kernel.fd);
  images.kernel_digest = std::move(kernel.digest);
  images.initrd = std::move(initrd.fd);
  images.initrd_digest = std::move(initrd.digest);

  const std::unique_ptr<char, decltype(&std::free)> real(::realpath(config.qemu.c_str(), nullptr), &std::free);
  if (!real) {
    return Error::from_errno("QEMU " + config.qemu);
  }
  images.qemu_path = real.get();
  const base::UniqueFd qemu = CR_TRY(base::open_file(images.qemu_path, O_RDONLY).context("QEMU"));
  const struct stat st = CR_TRY(stat_of(qemu.get()).context("QEMU " + images.qemu_path));
  images.qemu_id = {st.st_dev, st.st_ino};
  images.qemu_digest = CR_TRY(cached_digest(cache_dir, version_key(st), qemu.get()).context("QEMU"));
  return images;
}

}  // namespace cellrund::shim
