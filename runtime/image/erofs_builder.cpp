#include "image/erofs_builder.hpp"

#include <fcntl.h>
#include <linux/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>

#include "base/file.hpp"
#include "base/hex.hpp"
#include "base/log.hpp"
#include "crypto/digest.hpp"
#include "crypto/random.hpp"

namespace cellrund::image {
namespace {

using base::Errc;
using base::Error;
using base::Result;
using base::Status;
using base::UniqueFd;
using base::Until;
using model::Reason;
template <typename T>
using Outcome = Result<T, ImageFailure>;

constexpr std::uint32_t kErofsMagic = 0xE0F5E1E2;  // at byte 1024 (kernel Documentation/filesystems/erofs.rst)

// The file that the box fills. Removed again unless it was renamed to its final name.
class OutputFile {
 public:
  static Result<OutputFile> create(const std::string& dir, std::uint32_t owner) {
    std::array<std::uint8_t, 8> random{};
    CR_CHECK(crypto::random_bytes(random));
    const std::string path = dir + "/" + std::string(kUnfinishedImage) + base::to_hex(random);
    UniqueFd fd = CR_TRY(base::open_file(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0600));
    OutputFile out(path, std::move(fd));
    if (::fchown(out.fd_.get(), owner, owner) != 0) {
      return Error::from_errno("chown " + path);
    }
    return out;
  }
  OutputFile(OutputFile&& other) noexcept : path_(std::exchange(other.path_, {})), fd_(std::move(other.fd_)) {}
  OutputFile& operator=(OutputFile&&) = delete;
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;
  ~OutputFile() {
    if (!path_.empty()) {
      (void)base::remove_file(path_);  // remove_unfinished() gets it at the next start
    }
  }
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

  // A mount of this one file and nothing around it, which the box attaches in its own root (open_tree(2)): its ids
  // cannot reach the folder, and need not.
  [[nodiscard]] Result<UniqueFd> detached_mount() const {
    UniqueFd mount(
        static_cast<int>(::syscall(SYS_open_tree, AT_FDCWD, path_.c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)));
    if (!mount) {
      return Error::from_errno("open_tree " + path_);
    }
    return mount;
  }

  // From here on nobody but root can change it: the box is dead, and its ids no longer own it.
  [[nodiscard]] Status seal() const {
    if (::fchown(fd_.get(), 0, 0) != 0 || ::fchmod(fd_.get(), 0400) != 0) {
      return Error::from_errno("take over " + path_);
    }
    return base::ok();
  }

  Status publish(const std::string& path) {
    if (::fsync(fd_.get()) != 0) {
      return Error::from_errno("fsync " + path_);
    }
    if (::rename(path_.c_str(), path.c_str()) != 0) {
      return Error::from_errno("rename to " + path);
    }
    path_.clear();
    return base::ok();
  }

 private:
  OutputFile(std::string path, UniqueFd fd) : path_(std::move(path)), fd_(std::move(fd)) {}
  std::string path_;
  UniqueFd fd_;
};

Status check_superblock(int fd) {
  constexpr off_t kSuperblock = 1024;
  std::array<std::uint8_t, 4> magic{};
  if (::pread(fd, magic.data(), magic.size(), kSuperblock) != static_cast<ssize_t>(magic.size())) {
    return Error(Errc::kDataLoss, "the unpacker left no complete file");
  }
  const std::uint32_t value = static_cast<std::uint32_t>(magic[0]) | static_cast<std::uint32_t>(magic[1]) << 8U |
                              static_cast<std::uint32_t>(magic[2]) << 16U | static_cast<std::uint32_t>(magic[3]) << 24U;
  return value == kErofsMagic ? base::ok() : Status(Error(Errc::kDataLoss, "the unpacker's file is no EROFS"));
}

Outcome<base::Unit> unpack(ErofsJob& job, const OutputFile& output, const Until& until) {
  const PreparerOptions& options = job.options;
  UnpackRequest& request = job.request;
  request.max_bytes = options.max_image_bytes;
  request.max_entries = options.max_entries;
  request.cpu_seconds =
      static_cast<std::uint64_t>(std::chrono::ceil<std::chrono::seconds>(until.deadline.remaining()).count()) + 1;
  request.id_count = options.box_ids.count;
  request.mkfs_program = options.mkfs_program;

  const UniqueFd mount = CR_TRY(or_reason(output.detached_mount(), job.reasons.host));
  host::BoxOptions box;
  box.program = options.unpack_program;
  box.ids = options.box_ids;
  box.fds.emplace_back(mount.get(), kOutputMountFd);
  for (const UniqueFd& blob : job.blobs) {
    box.fds.emplace_back(blob.get(), kFirstLayerFd + static_cast<int>(box.fds.size()) - 1);
  }
  const host::BoxResult result = CR_TRY(
      or_reason(host::run_box(box, write_request(request), until).context("unpack"), job.reasons.host));
  const bool ended_well = !result.exit.signaled && result.exit.value == 0;
  auto answer = parse_answer(result.out);
  const std::string messages = result.err.empty() ? "" : ": " + base::log::quoted(result.err, 400);
  const std::string end =
      (result.exit.signaled ? "died of signal " : "left with code ") + std::to_string(result.exit.value) + messages;
  if (!answer.ok()) {
    return ImageFailure{job.reasons.host, "unpack: the box gave no answer and " + end};
  }
  switch (answer->verdict) {
    case UnpackVerdict::kInvalid:
      return ImageFailure{job.reasons.invalid, "unpack: " + answer->message};
    case UnpackVerdict::kMismatch:
      return ImageFailure{job.reasons.mismatch, "unpack: " + answer->message};
    case UnpackVerdict::kHostFailure:
      return ImageFailure{job.reasons.host, "unpack: " + answer->message};
    case UnpackVerdict::kUnpacked:
      break;
  }
  if (!ended_well) {
    return ImageFailure{job.reasons.host, "make " + std::string(job.what) + ": " + options.mkfs_program + " " + end};
  }
  return base::Unit{};
}

}  // namespace

ImageFailure image_failure(const Error& error, Reason otherwise) {
  switch (error.code()) {
    case Errc::kNotFound:
      return {error.os_errno() == 0 ? Reason::kImageNotFound : otherwise, error.message()};
    case Errc::kDeadlineExceeded:
      return {Reason::kStartDeadlineExceeded, error.message()};
    default:
      return {otherwise, error.message()};
  }
}

Outcome<CachedImage> build_erofs(ErofsJob job, const Until& until) {
  const Reason host = job.reasons.host;
  OutputFile output = CR_TRY(or_reason(OutputFile::create(job.dir, job.options.box_ids.base), host));
  CR_CHECK(unpack(job, output, until));
  CR_CHECK(or_reason(output.seal(), host));
  CR_CHECK(or_reason(check_superblock(output.fd()), host));
  CachedImage image;
  image.manifest_digest = job.name;
  struct stat st {};
  if (::fstat(output.fd(), &st) != 0) {
    return image_failure(Error::from_errno("stat"), host);
  }
  image.rootfs_bytes = static_cast<std::uint64_t>(st.st_size);
  image.rootfs_digest = CR_TRY(or_reason(crypto::digest_of_fd(output.fd(), image.rootfs_bytes), host));
  CR_CHECK(or_reason(output.publish(rootfs_file(job.dir, job.name)), host));
  return image;
}

}  // namespace cellrund::image
