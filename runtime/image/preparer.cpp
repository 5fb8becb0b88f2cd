#include "image/preparer.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <condition_variable>
#include <functional>
#include <map>
#include <set>
#include <stop_token>

#include "base/file.hpp"
#include "base/guarded.hpp"
#include "crypto/digest.hpp"
#include "image/erofs_builder.hpp"
#include "image/inputs_builder.hpp"
#include "image/oci.hpp"
#include "image/rootfs_builder.hpp"
#include "image/rootfs_cache.hpp"

namespace cellrund::image {
namespace {

using base::Errc;
using base::Error;
using base::Result;
using base::UniqueFd;
using base::Until;
using model::Reason;

// One version of one file: changes with every rewrite and every replacement.
struct FileVersion {
  base::FileId id;
  std::int64_t size = 0;
  std::int64_t changed_ns = 0;  // ctime: cannot be set back without the clock
  friend bool operator==(const FileVersion&, const FileVersion&) = default;
};

Result<FileVersion> version_of(const UniqueFd& fd) {
  struct stat st {};
  if (::fstat(fd.get(), &st) != 0) {
    return Error::from_errno("stat");
  }
  return FileVersion{{st.st_dev, st.st_ino}, st.st_size, st.st_ctim.tv_sec * 1'000'000'000 + st.st_ctim.tv_nsec};
}

// MemAvailable of /proc/meminfo (proc(5)); 0, and with it no build, when the kernel does not tell.
std::uint64_t available_memory() {
  constexpr std::string_view kKey = "MemAvailable:";
  constexpr std::uint64_t kUnit = 1024;
  const auto text = base::read_file("/proc/meminfo", 65536);
  const std::size_t at = text.ok() ? text->find(kKey) : std::string::npos;
  if (at == std::string::npos) {
    return 0;
  }
  const std::size_t digits = text->find_first_not_of(' ', at + kKey.size());
  std::uint64_t value = 0;
  if (digits != std::string::npos) {
    (void)std::from_chars(text->data() + digits, text->data() + text->size(), value);  // 0 when it is no number
  }
  return value * kUnit;
}

struct OpenImage {
  CachedImage image;
  UniqueFd rootfs;
};

}  // namespace

class Preparer::Work {
 public:
  explicit Work(PreparerOptions options) : options_(std::move(options)) {}
  [[nodiscard]] const std::string& images_dir() const noexcept { return options_.images_dir; }

  // One file: where it is kept, how it is made, and what has to be asked before a cached one may be used.
  struct Wanted {
    std::string dir, name;  // rootfs_file(dir, name)
    std::string what;       // for messages
    Reason host_failure;
    std::function<Result<CachedImage, ImageFailure>(const PreparerOptions& bounded)> make;
    std::function<Result<base::Unit, ImageFailure>(CachedImage& cached)> confirm;
  };

  Result<OpenImage, ImageFailure> image(const model::ImageRef& ref, ContentStore& store, const Until& until) {
    if (!crypto::is_digest_text(ref.digest)) {
      return ImageFailure{Reason::kImageInvalid, "the image reference has no sha256 digest"};
    }
    return get({.dir = options_.images_dir,
                .name = ref.digest,
                .what = "image " + ref.digest,
                .host_failure = Reason::kImagePullFailed,
                .make = [&](const PreparerOptions& bounded) { return build_rootfs(bounded, ref, store, until); },
                // The bytes are pinned by digest, but the name is a claim of the job until the store has confirmed it.
                .confirm = [&](CachedImage& cached) { return confirm_name(ref, cached, store, until); }},
               until);
  }

  Result<OpenImage, ImageFailure> inputs(const InputsPlan& plan, InputStore& store, const Until& until) {
    return get({.dir = store.images_dir(),
                .name = plan.image_name(),
                .what = "the inputs",
                .host_failure = Reason::kCreateContainerError,
                .make = [&](const PreparerOptions& bounded) { return build_inputs(bounded, plan, store, until); },
                .confirm = [](CachedImage& /*cached*/) -> Result<base::Unit, ImageFailure> { return base::Unit{}; }},
               until);
  }

 private:
  Result<OpenImage, ImageFailure> get(const Wanted& wanted, const Until& until) {
    // Whoever waits for another job's work looks up when it is stopped. Destroyed without the lock, which the call takes.
    const std::stop_callback stop(until.stop, [this] {
      (void)state_.lock();  // a waiter is either before its look at `until` or already in the wait
      changed_.notify_all();
    });
    CR_CHECK(begin(wanted, until));
    const Turn turn(*this, wanted.name);
    return get_alone(wanted, until);
  }

  struct State {
    std::set<std::string> busy;                   // digests that one thread works on
    std::map<std::string, FileVersion> verified;  // files whose bytes were hashed by this process
    bool building = false;                        // a box is at work
  };

  // Ends what begin() has begun.
  class Turn {
   public:
    Turn(Work& work, std::string digest) : work_(work), digest_(std::move(digest)) {}
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;
    Turn(Turn&&) = delete;
    Turn& operator=(Turn&&) = delete;
    ~Turn() { work_.end(digest_); }

   private:
    Work& work_;
    std::string digest_;
  };

  static Reason reason_of_end(const Wanted& wanted, const Until& until) {
    return until.stopped() ? wanted.host_failure : Reason::kStartDeadlineExceeded;
  }

  Result<base::Unit, ImageFailure> begin(const Wanted& wanted, const Until& until) {
    auto state = state_.lock();
    while (state->busy.contains(wanted.name)) {
      if (until.stopped() || until.deadline.expired()) {
        return ImageFailure{reason_of_end(wanted, until), wanted.what + " is still being prepared for another job"};
      }
      state.wait(changed_, until.deadline);
    }
    state->busy.insert(wanted.name);
    return base::Unit{};
  }

  void end(const std::string& digest) {
    state_.lock()->busy.erase(digest);
    changed_.notify_all();
  }

  // One box at a time: its tree lives in memory, and the share that it may take is computed from what is free now.
  Result<base::Unit, ImageFailure> build(const Wanted& wanted, const Until& until) {
    {
      auto state = state_.lock();
      while (state->building) {
        if (until.stopped() || until.deadline.expired()) {
          return ImageFailure{reason_of_end(wanted, until), wanted.what + " waits for another image to be prepared"};
        }
        state.wait(changed_, until.deadline);
      }
      state->building = true;
    }
    PreparerOptions bounded = options_;
    constexpr std::uint64_t kBytesPerEntry = 4096;  // a page, or the kernel's inode and name
    const std::uint64_t available = available_memory();
    bounded.max_image_bytes = std::min(options_.max_image_bytes, available / 2);
    bounded.max_entries = std::min(options_.max_entries, available / 4 / kBytesPerEntry);
    auto built = wanted.make(bounded);
    state_.lock()->building = false;
    changed_.notify_all();
    if (!built.ok()) {
      return std::move(built).error();
    }
    return base::Unit{};
  }

  Result<OpenImage, ImageFailure> get_alone(const Wanted& wanted, const Until& until) {
    auto cached = open_cached(wanted.dir, wanted.name);
    if (!cached.ok()) {
      return image_failure(cached.error(), wanted.host_failure);
    }
    if (cached->has_value()) {
      CR_CHECK(wanted.confirm((*cached)->image));
      return std::move(**cached);
    }
    CR_CHECK(build(wanted, until));
    auto built = open_cached(wanted.dir, wanted.name);
    if (!built.ok() || !built->has_value()) {
      return ImageFailure{wanted.host_failure, wanted.what + " vanished after it was prepared"};
    }
    return std::move(**built);
  }

  // nullopt: it has to be made (again). Hashes the file when this process has not seen this version of it yet.
  Result<std::optional<OpenImage>> open_cached(const std::string& dir, const std::string& digest) {
    std::optional<CachedImage> image = CR_TRY(load_cached(dir, digest));
    if (!image.has_value()) {
      return std::optional<OpenImage>();
    }
    auto fd = base::open_file(rootfs_file(dir, digest), O_RDONLY | O_NOFOLLOW);
    if (!fd.ok()) {
      return fd.error().code() == Errc::kNotFound ? Result<std::optional<OpenImage>>(std::nullopt)
                                                  : Result<std::optional<OpenImage>>(std::move(fd).error());
    }
    const FileVersion version = CR_TRY(version_of(*fd));
    if (!is_verified(digest, version)) {
      auto actual = crypto::digest_of_fd(fd->get(), image->rootfs_bytes);
      if (!actual.ok() || *actual != image->rootfs_digest) {
        return std::optional<OpenImage>();  // damaged: the layers are the truth, so it is made again
      }
      state_.lock()->verified[digest] = version;
    }
    return std::optional<OpenImage>(OpenImage{std::move(*image), std::move(*fd)});
  }

  bool is_verified(const std::string& digest, const FileVersion& version) {
    auto state = state_.lock();
    const auto known = state->verified.find(digest);
    return known != state->verified.end() && known->second == version;
  }

  Result<base::Unit, ImageFailure> confirm_name(const model::ImageRef& ref, CachedImage& image, ContentStore& store,
                                                const Until& until) {
    if (std::find(image.repositories.begin(), image.repositories.end(), ref.repository) != image.repositories.end()) {
      return base::Unit{};
    }
    auto record = store.find_image(ref.text(), until).context("find image");
    if (!record.ok() && record.error().code() == base::Errc::kNotFound) {
      return ImageFailure{Reason::kImageNotFound, "image " + ref.text() + " is not on this node"};
    }
    if (!record.ok()) {
      return image_failure(record.error(), Reason::kImagePullFailed);
    }
    if (record->target.digest != ref.digest) {
      return ImageFailure{Reason::kImageDigestMismatch,
                          "image record " + ref.text() + " points at " + record->target.digest};
    }
    image.repositories.push_back(ref.repository);
    auto saved = save_cached(options_.images_dir, image);
    if (!saved.ok()) {
      return image_failure(saved.error(), Reason::kImagePullFailed);
    }
    return base::Unit{};
  }

  PreparerOptions options_;
  base::Guarded<State> state_;
  std::condition_variable changed_;
};

Preparer::Preparer(std::unique_ptr<Work> work) : work_(std::move(work)) {}
Preparer::~Preparer() = default;

Result<std::unique_ptr<Preparer>> Preparer::create(PreparerOptions options) {
  CR_CHECK(base::make_dirs(options.images_dir, 0700).context("prepare images"));
  CR_CHECK(remove_unfinished(options.images_dir).context("prepare images"));
  return std::unique_ptr<Preparer>(new Preparer(std::make_unique<Work>(std::move(options))));
}

Result<model::PreparedImage, ImageFailure> Preparer::prepare(const model::ImageRef& ref, ContentStore& store,
                                                             const Until& until) {
  OpenImage open = CR_TRY(work_->image(ref, store, until));
  return model::PreparedImage(ref, std::move(open.image.config), rootfs_file(work_->images_dir(), ref.digest),
                              std::move(open.image.rootfs_digest), std::move(open.rootfs));
}

Result<model::PreparedInputs, ImageFailure> Preparer::prepare_inputs(const InputsPlan& plan, InputStore& store,
                                                                     const Until& until) {
  OpenImage open = CR_TRY(work_->inputs(plan, store, until));
  return model::PreparedInputs(rootfs_file(store.images_dir(), plan.image_name()), std::move(open.image.rootfs_digest),
                               std::move(open.rootfs));
}

}  // namespace cellrund::image
