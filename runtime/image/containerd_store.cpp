#include "image/containerd_store.hpp"

#include <unistd.h>

#include <array>

#include "base/hex.hpp"
#include "containerd/timeouts.hpp"
#include "crypto/random.hpp"

namespace cellrund::image {
namespace {

using base::Deadline;
using base::Error;
using base::Result;
using base::Status;
using containerd::Call;

constexpr auto kLeaseLifetime = std::chrono::hours(1);  // should this process die in between

ImageRecord to_record(const containerd::Image& image) {
  return {image.name,
          {image.target.media_type, image.target.digest, image.target.size},
          base::format_rfc3339(image.created_at)};
}

// Calls with at most `budget`. Running out of that is containerd's fault, not the end of the caller's time.
template <typename F>
auto within(const base::Until& until, base::Nanoseconds budget, F&& call) {
  auto result = call(Call(until.capped(budget)));
  if (!result.ok() && result.error().code() == base::Errc::kDeadlineExceeded && !until.deadline.expired()) {
    result = Error(base::Errc::kUnavailable, result.error().message());
  }
  return result;
}

}  // namespace

Result<ImageRecord> ContainerdStore::find_image(const std::string& name, const base::Until& until) {
  return to_record(CR_TRY(within(until, containerd::kQueryTimeout, [&](const Call& call) { return client_.get_image(name, call); })));
}

Result<std::vector<ImageRecord>> ContainerdStore::list_images(Deadline deadline) {
  std::vector<ImageRecord> out;
  for (const containerd::Image& image : CR_TRY(client_.list_images(deadline))) {
    out.push_back(to_record(image));
  }
  return out;
}

Status ContainerdStore::put_image(const std::string& name, const Descriptor& target, Deadline deadline) {
  containerd::Image image;
  image.name = name;
  image.target = {target.media_type, target.digest, target.size};
  return client_.put_image(image, Call(deadline, lease_));
}

Status ContainerdStore::remove_image(const std::string& name, Deadline deadline) {
  return client_.delete_image(name, deadline);
}

Result<std::string> ContainerdStore::read_blob(const std::string& digest, std::size_t limit, const base::Until& until) {
  return within(until, containerd::kBlobTimeout, [&](const Call& call) { return client_.read_blob_text(digest, limit, call); });
}

Status ContainerdStore::fetch_blob(const std::string& digest, int fd, std::uint64_t limit, const base::Until& until) {
  return within(until, containerd::kBlobTimeout, [&](const Call& call) { return client_.read_blob_to_fd(digest, limit, fd, call); });
}

Status ContainerdStore::ingest_blob(const Descriptor& blob, int fd, const Labels& labels, Deadline deadline) {
  if (::lseek(fd, 0, SEEK_SET) < 0) {
    return Error::from_errno("rewind");
  }
  const containerd::Labels wanted(labels.begin(), labels.end());
  return client_.ingest(blob.digest, blob.size, containerd::fd_reader(fd), wanted, Call(deadline, lease_));
}

Status ContainerdStore::hold(Deadline deadline) {
  std::array<std::uint8_t, 8> random{};
  CR_CHECK(crypto::random_bytes(random));
  const std::string id = "cellrun-import-" + base::to_hex(random);
  CR_CHECK(client_.ensure_namespace(deadline));
  CR_CHECK(client_.create_lease(id, kLeaseLifetime, {}, deadline));
  lease_ = id;
  return base::ok();
}

Status ContainerdStore::release(Deadline deadline) {
  if (lease_.empty()) {
    return base::ok();
  }
  return client_.delete_lease(std::exchange(lease_, {}), deadline);
}

}  // namespace cellrund::image
