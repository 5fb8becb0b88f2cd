// Reading blobs, and their records. Writing is in ingest.cpp.
#include <unistd.h>

#include <cerrno>

#include "base/file.hpp"
#include "containerd/client.hpp"
#include "containerd/impl.hpp"

namespace cellrund::containerd {

BlobReader fd_reader(int fd) {
  return [fd](std::uint64_t offset, std::span<std::uint8_t> out) -> base::Result<std::size_t> {
    for (;;) {
      const ssize_t n = ::pread(fd, out.data(), out.size(), static_cast<off_t>(offset));
      if (n >= 0) {
        return static_cast<std::size_t>(n);
      }
      if (errno != EINTR) {
        return base::Error::from_errno("pread");
      }
    }
  };
}

base::Result<BlobInfo> Client::blob_info(const std::string& digest, const Call& call) {
  wire::content::InfoRequest request;
  request.set_digest(digest);
  wire::content::InfoResponse response;
  CR_CHECK(impl_->unary(*impl_->content, &wire::content::Content::Stub::Info, request, response, call,
                        "Content.Info " + digest));
  const std::int64_t size = response.info().size();
  if (size < 0) {
    return base::Error(base::Errc::kDataLoss, "containerd: Content.Info " + digest + ": negative size");
  }
  return BlobInfo{response.info().digest(), static_cast<std::uint64_t>(size), to_labels(response.info().labels())};
}

base::Status Client::read_blob(const std::string& digest, std::uint64_t limit, const BlobSink& sink, const Call& call) {
  const std::string what = "Content.Read " + digest;
  CallContext context(impl_->connection, call);
  const std::stop_callback stop(call.stop, [&context] { context.cancel(); });
  wire::content::ReadContentRequest request;
  request.set_digest(digest);
  auto reader = impl_->content->Read(context.get(), request);
  wire::content::ReadContentResponse response;
  std::uint64_t offset = 0;
  base::Status failure = base::ok();
  while (failure.ok() && reader->Read(&response)) {
    const std::string& data = response.data();
    if (response.offset() < 0 || static_cast<std::uint64_t>(response.offset()) != offset) {
      failure = base::Error(base::Errc::kDataLoss, "containerd: " + what + ": pieces out of order");
    } else if (data.size() > limit - offset) {
      failure = base::Error(base::Errc::kResourceExhausted,
                            "containerd: " + what + ": longer than " + std::to_string(limit) + " bytes");
    } else {
      failure = sink(base::as_bytes(data));
      offset += data.size();
    }
  }
  if (!failure.ok()) {
    context.cancel();
    (void)reader->Finish();  // Cancelled, by us
    return failure;
  }
  return to_status(reader->Finish(), what);
}

base::Result<std::string> Client::read_blob_text(const std::string& digest, std::size_t limit, const Call& call) {
  std::string out;
  CR_CHECK(read_blob(
      digest, limit,
      [&](base::BytesView bytes) {
        out.append(base::as_text(bytes));
        return base::ok();
      },
      call));
  return out;
}

base::Status Client::read_blob_to_fd(const std::string& digest, std::uint64_t limit, int fd, const Call& call) {
  return read_blob(
      digest, limit, [fd](base::BytesView bytes) { return base::write_all(fd, bytes); }, call);
}

base::Status Client::set_blob_labels(const std::string& digest, const Labels& labels, const Call& call) {
  if (labels.empty()) {
    return base::ok();  // an empty mask would mean: replace everything
  }
  wire::content::UpdateRequest request;
  request.mutable_info()->set_digest(digest);
  request.mutable_info()->mutable_labels()->insert(labels.begin(), labels.end());
  for (const auto& [key, value] : labels) {
    request.mutable_update_mask()->add_paths("labels." + key);
  }
  wire::content::UpdateResponse response;
  return impl_->unary(*impl_->content, &wire::content::Content::Stub::Update, request, response, call,
                      "Content.Update " + digest);
}

base::Status Client::delete_blob(const std::string& digest, const Call& call) {
  wire::content::DeleteContentRequest request;
  request.set_digest(digest);
  google::protobuf::Empty response;
  return impl_->unary(*impl_->content, &wire::content::Content::Stub::Delete, request, response, call,
                      "Content.Delete " + digest);
}

}  // namespace cellrund::containerd
