#include "image/input_store.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/log.hpp"
#include "image/rootfs_cache.hpp"

namespace cellrund::image {

using base::Errc;
using base::Error;
using base::Result;
using base::Status;
using base::UniqueFd;

namespace {

constexpr std::size_t kMaxFiles = 100'000;
constexpr std::string_view kPrefix = "sha256:";

std::int64_t now_seconds() {
  timespec now{};
  (void)::clock_gettime(CLOCK_REALTIME, &now);  // file times are of this clock
  return now.tv_sec;
}

// The time of its last use is the file's.
void touch(const std::string& path) {
  (void)::utimensat(AT_FDCWD, path.c_str(), nullptr, AT_SYMLINK_NOFOLLOW);  // at worst it goes too early, and is uploaded again
}

}  // namespace

// One archive or image on disk.
struct InputStore::Stored {
  std::string name;  // "sha256:<64 hex>"
  bool is_image = false;
  std::uint64_t bytes = 0;
  std::uint32_t uid = 0;  // who uploaded it; root for an image
  std::int64_t used = 0;  // wall clock, seconds
};

Result<std::unique_ptr<InputStore>> InputStore::create(InputStoreOptions options) {
  std::unique_ptr<InputStore> store(new InputStore(std::move(options)));
  CR_CHECK(base::make_dirs(store->options_.dir + "/sha256", 0700).context("prepare inputs"));
  CR_CHECK(base::make_dirs(store->images_dir(), 0700).context("prepare inputs"));
  CR_CHECK(remove_unfinished(store->images_dir()).context("prepare inputs"));
  if (auto collected = store->collect(); !collected.ok()) {  // says nothing about the jobs that are to be recovered
    base::log::warn("step=collect-inputs error=" + base::log::quoted(collected.error().message()) + ", ignoring");
  }
  return store;
}

std::string InputStore::path_of(const std::string& digest) const {
  return options_.dir + "/sha256/" + digest.substr(kPrefix.size());
}

Result<std::vector<InputStore::Stored>> InputStore::list() const {
  std::vector<Stored> out;
  const auto add = [&](const std::string& path, std::string name, bool is_image) {
    struct stat st {};
    if (::lstat(path.c_str(), &st) == 0 && S_ISREG(st.st_mode) && crypto::is_digest_text(name)) {
      out.push_back({std::move(name), is_image, std::max(static_cast<std::uint64_t>(st.st_size), options_.least_charge), st.st_uid, st.st_mtim.tv_sec});
    }
  };
  for (const std::string& file : CR_TRY(base::list_dir(options_.dir + "/sha256", kMaxFiles))) {
    add(options_.dir + "/sha256/" + file, std::string(kPrefix) + file, false);
  }
  constexpr std::string_view kImage = ".erofs";
  for (const std::string& file : CR_TRY(base::list_dir(images_dir(), kMaxFiles))) {
    if (file.ends_with(kImage)) {
      add(images_dir() + "/" + file, std::string(kPrefix) + file.substr(0, file.size() - kImage.size()), true);
    }
  }
  return out;
}

Status InputStore::make_room(State& state, std::uint64_t more, std::optional<std::uint32_t> peer_uid) const {
  std::vector<Stored> stored = CR_TRY(list());
  std::sort(stored.begin(), stored.end(), [](const Stored& a, const Stored& b) { return a.used < b.used; });
  std::uint64_t total = more;
  for (const auto& [uid, bytes] : state.under_way) {
    total += bytes;
  }
  std::uint64_t of_peer = more + (peer_uid.has_value() ? state.under_way[*peer_uid] : 0);
  for (const Stored& file : stored) {
    total += file.bytes;
    of_peer += !file.is_image && peer_uid == file.uid ? file.bytes : 0;
  }
  const std::int64_t oldest = now_seconds() - options_.keep.count();
  for (const Stored& file : stored) {
    const bool counts_for_peer = !file.is_image && peer_uid == file.uid;
    const bool too_much = total > options_.max_bytes || (counts_for_peer && of_peer > options_.max_peer_bytes);
    if (state.pinned.contains(file.name) || !(file.used < oldest || too_much)) {
      continue;
    }
    CR_CHECK(file.is_image ? remove_cached(images_dir(), file.name) : base::remove_file(path_of(file.name)));
    total -= file.bytes;
    of_peer -= counts_for_peer ? file.bytes : 0;
  }
  if (more != 0 && of_peer > options_.max_peer_bytes) {
    return Error(Errc::kResourceExhausted, "inputs: this user's uploads may hold " + std::to_string(options_.max_peer_bytes) +
                                               " bytes, and open jobs name what is there (inputs.max_peer_bytes)");
  }
  if (more != 0 && total > options_.max_bytes) {
    return Error(Errc::kResourceExhausted, "inputs: the node keeps at most " + std::to_string(options_.max_bytes) +
                                               " bytes, and open jobs name what is there (inputs.max_bytes)");
  }
  return base::ok();
}

Result<std::optional<InputStore::Upload>> InputStore::begin(const std::string& digest, std::uint64_t size, std::uint32_t peer_uid) {
  if (!crypto::is_digest_text(digest)) {
    return Error(Errc::kInvalidArgument, "inputs: no sha256 digest");
  }
  if (size == 0) {
    return Error(Errc::kInvalidArgument, "inputs: an archive of no bytes");
  }
  if (size > options_.max_archive_bytes) {
    return Error(Errc::kResourceExhausted, "inputs: an archive of " + std::to_string(size) + " bytes; this node takes at most " +
                                               std::to_string(options_.max_archive_bytes) + " (inputs.max_archive_bytes)");
  }
  auto state = state_.lock();
  const std::string path = path_of(digest);
  struct stat st {};
  if (::lstat(path.c_str(), &st) == 0 && static_cast<std::uint64_t>(st.st_size) == size) {
    touch(path);
    return std::optional<Upload>();
  }
  CR_CHECK(make_room(*state, std::max(size, options_.least_charge), peer_uid));
  UniqueFd file = CR_TRY(base::open_file(options_.dir + "/sha256", O_TMPFILE | O_RDWR, 0600).context("inputs"));
  // The disk's room now rather than its lack at the last byte; a file system that cannot promise any is asked for none.
  if (::fallocate(file.get(), FALLOC_FL_KEEP_SIZE, 0, static_cast<off_t>(size)) != 0 && errno != EOPNOTSUPP) {
    return Error::from_errno("inputs: room for " + std::to_string(size) + " bytes");
  }
  // Below a folder that root alone may enter: the owner is a note of who is to be charged for it.
  if (::fchown(file.get(), peer_uid, static_cast<gid_t>(-1)) != 0) {
    return Error::from_errno("inputs: chown");
  }
  state->under_way[peer_uid] += size;
  return std::optional<Upload>(Upload(*this, digest, size, peer_uid, std::move(file)));
}

InputStore::Upload::Upload(Upload&& other) noexcept
    : store_(std::exchange(other.store_, nullptr)), digest_(std::move(other.digest_)), size_(other.size_),
      peer_uid_(other.peer_uid_), file_(std::move(other.file_)), sha_(std::move(other.sha_)), received_(other.received_) {}

InputStore::Upload::~Upload() {
  if (store_ == nullptr) {
    return;
  }
  file_.reset();  // its bytes are free again before they are no longer counted
  auto state = store_->state_.lock();
  const auto mine = state->under_way.find(peer_uid_);
  mine->second -= size_;
  if (mine->second == 0) {
    state->under_way.erase(mine);
  }
}

Status InputStore::Upload::append(base::BytesView bytes) {
  if (bytes.size() > size_ - received_) {
    return Error(Errc::kInvalidArgument, "inputs: more bytes than the " + std::to_string(size_) + " that were announced");
  }
  CR_CHECK(base::write_all(file_.get(), bytes).context("inputs"));
  sha_.update(bytes);
  received_ += bytes.size();
  return base::ok();
}

Status InputStore::Upload::finish() {
  if (!whole()) {
    return Error(Errc::kInvalidArgument, "inputs: " + std::to_string(received_) + " of " + std::to_string(size_) + " bytes came");
  }
  if (const std::string actual = crypto::digest_text(sha_.finish()); actual != digest_) {
    return Error(Errc::kDataLoss, "inputs: the bytes have the digest " + actual + ", not the announced " + digest_);
  }
  if (::fsync(file_.get()) != 0) {
    return Error::from_errno("inputs: fsync");
  }
  return store_->publish(*this);
}

Status InputStore::publish(const Upload& upload) {
  const auto state = state_.lock();
  const std::string path = path_of(upload.digest_);
  // Somebody else's upload may have been faster, or a damaged file stands there: these bytes are the right ones.
  CR_CHECK(base::remove_file(path));
  const std::string self = "/proc/self/fd/" + std::to_string(upload.file_.get());
  if (::linkat(AT_FDCWD, self.c_str(), AT_FDCWD, path.c_str(), AT_SYMLINK_FOLLOW) != 0) {
    return Error::from_errno("inputs: name the archive");
  }
  const UniqueFd folder = CR_TRY(base::open_file(options_.dir + "/sha256", O_RDONLY | O_DIRECTORY));
  if (::fsync(folder.get()) != 0) {
    return Error::from_errno("inputs: fsync folder");
  }
  return base::ok();
}

Result<InputStore::Pin> InputStore::pin(const std::vector<std::string>& archives, const std::vector<std::string>& images) {
  auto state = state_.lock();
  for (const std::string& digest : archives) {
    if (!crypto::is_digest_text(digest) || !base::exists(path_of(digest))) {
      return Error(Errc::kNotFound, digest + " is not on this node");
    }
    touch(path_of(digest));
  }
  std::vector<std::string> names = archives;
  for (const std::string& image : images) {
    names.push_back(image);
    touch(rootfs_file(images_dir(), image));
  }
  for (const std::string& name : names) {
    ++state->pinned[name];
  }
  return Pin(*this, std::move(names));
}

InputStore::Pin::~Pin() {
  if (store_ == nullptr) {
    return;
  }
  auto state = store_->state_.lock();
  for (const std::string& name : names_) {
    if (const auto held = state->pinned.find(name); --held->second == 0) {
      state->pinned.erase(held);
    }
  }
}

Result<UniqueFd> InputStore::open(const std::string& digest) const {
  return base::open_file(path_of(digest), O_RDONLY | O_NOFOLLOW);
}

void InputStore::discard(const std::string& digest) {
  const auto state = state_.lock();
  (void)base::remove_file(path_of(digest));  // at worst the next job is refused as well
}

Status InputStore::collect() {
  auto state = state_.lock();
  return make_room(*state, 0, std::nullopt);
}

}  // namespace cellrund::image
