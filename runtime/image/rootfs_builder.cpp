#include "image/rootfs_builder.hpp"

#include <fcntl.h>
#include <linux/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/file.hpp"
#include "base/hex.hpp"
#include "base/log.hpp"
#include "crypto/digest.hpp"
#include "crypto/random.hpp"
#include "image/oci.hpp"
#include "image/unpack/request.hpp"

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

constexpr std::string_view kUnfinished = ".building-";
constexpr std::uint32_t kErofsMagic = 0xE0F5E1E2;  // at byte 1024 (kernel Documentation/filesystems/erofs.rst)
constexpr std::size_t kMaxFiles = 100'000;

// The same step, its failure put into the words of a job's outcome.
template <typename T>
Outcome<T> or_reason(Result<T> result, Reason reason) {
  if (result.ok()) {
    return std::move(result).value();
  }
  return image_failure(result.error(), reason);
}

Compression to_compression(LayerCompression compression) {
  switch (compression) {
    case LayerCompression::kNone:
      return Compression::kNone;
    case LayerCompression::kGzip:
      return Compression::kGzip;
    case LayerCompression::kZstd:
      return Compression::kZstd;
  }
  return Compression::kNone;
}

// A small document of the store, known to be what its digest says.
Outcome<std::string> read_document(ContentStore& store, const std::string& digest, std::string_view what,
                                   const Until& until) {
  std::string text =
      CR_TRY(or_reason(store.read_blob(digest, kMaxDocumentBytes, until).context(what), Reason::kImagePullFailed));
  if (crypto::digest_text(base::as_bytes(text)) != digest) {
    return ImageFailure{Reason::kImageDigestMismatch,
                        std::string(what) + ": its bytes do not have the digest " + digest};
  }
  return text;
}

// A layer in a nameless file that vanishes with the descriptor. Hashed here, so that the box gets verified bytes only.
Outcome<UniqueFd> fetch_layer(const std::string& dir, ContentStore& store, const Descriptor& blob, const Until& until) {
  UniqueFd fd = CR_TRY(or_reason(base::open_file(dir, O_TMPFILE | O_RDWR, 0600), Reason::kImagePullFailed));
  const std::string where = "layer " + blob.digest;
  CR_CHECK(
      or_reason(store.fetch_blob(blob.digest, fd.get(), blob.size, until).context(where), Reason::kImagePullFailed));
  const std::string digest =
      CR_TRY(or_reason(crypto::digest_of_fd(fd.get(), blob.size).context(where), Reason::kImagePullFailed));
  if (digest != blob.digest) {
    return ImageFailure{Reason::kImageDigestMismatch, where + ": its bytes have the digest " + digest};
  }
  if (::lseek(fd.get(), 0, SEEK_SET) < 0) {
    return image_failure(Error::from_errno(where), Reason::kImagePullFailed);
  }
  return fd;
}

// The file that the box fills. Removed again unless it was renamed to its final name.
class OutputFile {
 public:
  static Result<OutputFile> create(const std::string& dir, std::uint32_t owner) {
    std::array<std::uint8_t, 8> random{};
    CR_CHECK(crypto::random_bytes(random));
    const std::string path = dir + "/" + std::string(kUnfinished) + base::to_hex(random);
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

Outcome<base::Unit> unpack(const PreparerOptions& options, const Manifest& manifest, const Config& config,
                           const std::vector<UniqueFd>& layers, const OutputFile& output, const Until& until) {
  UnpackRequest request;
  for (std::size_t i = 0; i < manifest.layers.size(); ++i) {
    request.layers.push_back({to_compression(manifest.layers[i].compression), config.diff_ids[i]});
  }
  request.max_bytes = options.max_image_bytes;
  request.max_entries = options.max_entries;
  request.cpu_seconds =
      static_cast<std::uint64_t>(std::chrono::ceil<std::chrono::seconds>(until.deadline.remaining()).count()) + 1;
  request.id_count = options.box_ids.count;
  request.mkfs_program = options.mkfs_program;

  const UniqueFd mount = CR_TRY(or_reason(output.detached_mount(), Reason::kImagePullFailed));
  host::BoxOptions box;
  box.program = options.unpack_program;
  box.ids = options.box_ids;
  box.fds.emplace_back(mount.get(), kOutputMountFd);
  for (const UniqueFd& layer : layers) {
    box.fds.emplace_back(layer.get(), kFirstLayerFd + static_cast<int>(box.fds.size()) - 1);
  }
  const host::BoxResult result = CR_TRY(
      or_reason(host::run_box(box, write_request(request), until).context("unpack"), Reason::kImagePullFailed));
  const bool ended_well = !result.exit.signaled && result.exit.value == 0;
  auto answer = parse_answer(result.out);
  const std::string messages = result.err.empty() ? "" : ": " + base::log::quoted(result.err, 400);
  const std::string end =
      (result.exit.signaled ? "died of signal " : "left with code ") + std::to_string(result.exit.value) + messages;
  if (!answer.ok()) {
    return ImageFailure{Reason::kImagePullFailed, "unpack: the box gave no answer and " + end};
  }
  switch (answer->verdict) {
    case UnpackVerdict::kInvalid:
      return ImageFailure{Reason::kImageInvalid, "unpack: " + answer->message};
    case UnpackVerdict::kMismatch:
      return ImageFailure{Reason::kImageDigestMismatch, "unpack: " + answer->message};
    case UnpackVerdict::kHostFailure:
      return ImageFailure{Reason::kImagePullFailed, "unpack: " + answer->message};
    case UnpackVerdict::kUnpacked:
      break;
  }
  if (!ended_well) {
    return ImageFailure{Reason::kImagePullFailed, "make the root file system: " + options.mkfs_program + " " + end};
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

Outcome<CachedImage> build_rootfs(const PreparerOptions& options, const model::ImageRef& ref, ContentStore& store,
                                  const Until& until) {
  const ImageRecord record =
      CR_TRY(or_reason(store.find_image(ref.text(), until).context("find image"), Reason::kImagePullFailed));
  if (record.target.digest != ref.digest) {
    return ImageFailure{Reason::kImageDigestMismatch,
                        "image record " + ref.text() + " points at " + record.target.digest};
  }
  const std::string manifest_text = CR_TRY(read_document(store, ref.digest, "manifest", until));
  const Manifest manifest = CR_TRY(or_reason(parse_manifest(manifest_text), Reason::kImageInvalid));
  const std::string config_text = CR_TRY(read_document(store, manifest.config.digest, "config", until));
  const Config config = CR_TRY(or_reason(parse_config(config_text), Reason::kImageInvalid));
  if (config.os != "linux" || config.architecture != "amd64") {
    return ImageFailure{Reason::kImageInvalid, "config: it is for " +
                                                   base::log::quoted(config.os + "/" + config.architecture) +
                                                   ", this node runs linux/amd64"};
  }
  if (config.diff_ids.size() != manifest.layers.size()) {
    return ImageFailure{Reason::kImageInvalid, "config: it names " + std::to_string(config.diff_ids.size()) +
                                                   " diff_ids for " + std::to_string(manifest.layers.size()) +
                                                   " layers"};
  }
  std::vector<UniqueFd> layers;
  for (const Layer& layer : manifest.layers) {
    layers.push_back(CR_TRY(fetch_layer(options.images_dir, store, layer.blob, until)));
  }
  OutputFile output =
      CR_TRY(or_reason(OutputFile::create(options.images_dir, options.box_ids.base), Reason::kImagePullFailed));
  CR_CHECK(unpack(options, manifest, config, layers, output, until));
  CR_CHECK(or_reason(output.seal(), Reason::kImagePullFailed));
  CR_CHECK(or_reason(check_superblock(output.fd()), Reason::kImagePullFailed));

  CachedImage image;
  image.manifest_digest = ref.digest;
  image.repositories = {ref.repository};
  image.config = config.process;
  struct stat st {};
  if (::fstat(output.fd(), &st) != 0) {
    return image_failure(Error::from_errno("stat"), Reason::kImagePullFailed);
  }
  image.rootfs_bytes = static_cast<std::uint64_t>(st.st_size);
  image.rootfs_digest =
      CR_TRY(or_reason(crypto::digest_of_fd(output.fd(), image.rootfs_bytes), Reason::kImagePullFailed));
  // The metadata's fsync of the folder makes the rename durable, too.
  CR_CHECK(or_reason(output.publish(rootfs_file(options.images_dir, ref.digest)), Reason::kImagePullFailed));
  CR_CHECK(or_reason(save_cached(options.images_dir, image), Reason::kImagePullFailed));
  return image;
}

Status remove_unfinished(const std::string& images_dir) {
  for (const std::string& name : CR_TRY(base::list_dir(images_dir, kMaxFiles))) {
    if (name.starts_with(kUnfinished) || name.ends_with(".new")) {
      CR_CHECK(base::remove_file(images_dir + "/" + name));
    }
  }
  return base::ok();
}

}  // namespace cellrund::image
