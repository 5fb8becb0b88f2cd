// Content.Write, request and response in lockstep (containerd services/content/contentserver/contentserver.go):
//   STAT    takes the reference's lock and tells how much of an earlier attempt is there; Unavailable: someone holds
//   the lock WRITE   at exactly that offset, at most 1 MiB a message COMMIT  with size, digest and labels;
//   FailedPrecondition: the bytes are not what was announced
// AlreadyExists at any point means that the blob is there. Labels of a COMMIT reach new blobs only.
#include <algorithm>
#include <utility>

#include "base/file.hpp"
#include "containerd/client.hpp"
#include "containerd/impl.hpp"

namespace cellrund::containerd {
namespace {

enum class Attempt {
  kDone,
  kPresent,   // the blob was there before
  kLocked,    // another writer holds the reference
  kMismatch,  // containerd refused to commit
};

struct Blob {
  const std::string& digest;
  std::uint64_t size;
  const BlobReader& reader;
  const Labels& labels;
  std::string ref;
};

class Upload {
 public:
  Upload(wire::content::Content::Stub& stub, CallContext& context, const Blob& blob)
      : blob_(blob), what_("Content.Write " + blob.digest), stream_(stub.Write(context.get())), context_(context) {}

  // `resumed_at`: how many bytes an earlier attempt had left there.
  base::Result<Attempt> run(std::uint64_t& resumed_at) {
    wire::content::WriteContentRequest request;
    request.set_action(wire::content::STAT);
    request.set_ref(blob_.ref);
    request.set_total(static_cast<std::int64_t>(blob_.size));
    request.set_expected(blob_.digest);
    if (!exchange(request)) {
      return ended(wire::content::STAT);
    }
    std::uint64_t offset = static_cast<std::uint64_t>(std::max<std::int64_t>(response_.offset(), 0));
    resumed_at = offset;
    if (offset > blob_.size) {
      return stopped(Attempt::kMismatch);
    }
    std::string chunk;
    while (offset < blob_.size) {
      chunk.resize(static_cast<std::size_t>(std::min<std::uint64_t>(kChunkBytes, blob_.size - offset)));
      auto n = blob_.reader(offset, {reinterpret_cast<std::uint8_t*>(chunk.data()), chunk.size()});
      if (n.ok() && *n == 0) {
        n = base::Error(base::Errc::kDataLoss, "the source ends before " + std::to_string(blob_.size) + " bytes");
      }
      if (!n.ok()) {
        (void)stopped(Attempt::kMismatch);
        return std::move(n).error().context(what_);
      }
      chunk.resize(*n);
      request.Clear();
      request.set_action(wire::content::WRITE);
      request.set_offset(static_cast<std::int64_t>(offset));
      request.set_data(std::move(chunk));
      const std::uint64_t expected = offset + *n;
      if (!exchange(request)) {
        return ended(wire::content::WRITE);
      }
      chunk = std::move(*request.mutable_data());
      if (response_.offset() < 0 || static_cast<std::uint64_t>(response_.offset()) != expected) {
        (void)stopped(Attempt::kMismatch);
        return base::Error(base::Errc::kDataLoss, "containerd: " + what_ + ": written to another offset than asked");
      }
      offset = expected;
    }
    request.Clear();
    request.set_action(wire::content::COMMIT);
    request.set_offset(static_cast<std::int64_t>(offset));
    request.set_total(static_cast<std::int64_t>(blob_.size));
    request.set_expected(blob_.digest);
    request.mutable_labels()->insert(blob_.labels.begin(), blob_.labels.end());
    if (!exchange(request)) {
      return ended(wire::content::COMMIT);
    }
    stream_->WritesDone();
    CR_CHECK(to_status(finish(), what_));
    return Attempt::kDone;
  }

 private:
  bool exchange(const wire::content::WriteContentRequest& request) {
    return stream_->Write(request) && stream_->Read(&response_);
  }

  // gRPC gives no status before the last message was read, and containerd 1.6 sends a second one for a COMMIT.
  grpc::Status finish() {
    while (stream_->Read(&response_)) {
    }
    return stream_->Finish();
  }

  Attempt stopped(Attempt how) {
    context_.cancel();
    (void)finish();  // Cancelled, by us
    return how;
  }

  base::Result<Attempt> ended(wire::content::WriteAction during) {
    const grpc::Status status = finish();
    if (status.error_code() == grpc::ALREADY_EXISTS) {
      return Attempt::kPresent;
    }
    // Unavailable is also what gRPC says when the server is gone; only the text tells (content/local/locks.go).
    if (during == wire::content::STAT && status.error_code() == grpc::UNAVAILABLE &&
        status.error_message().find("locked") != std::string::npos) {
      return Attempt::kLocked;
    }
    if (during == wire::content::COMMIT && status.error_code() == grpc::FAILED_PRECONDITION) {
      return Attempt::kMismatch;
    }
    if (status.ok()) {
      return base::Error(base::Errc::kUnavailable, "containerd: " + what_ + ": stream ended early");
    }
    return to_error(status, what_);
  }

  const Blob& blob_;
  std::string what_;
  std::unique_ptr<grpc::ClientReaderWriter<wire::content::WriteContentRequest, wire::content::WriteContentResponse>>
      stream_;
  CallContext& context_;
  wire::content::WriteContentResponse response_;
};

}  // namespace

base::Status Client::ingest(const std::string& digest, std::uint64_t size, const BlobReader& reader,
                            const Labels& labels, const Call& call) {
  const Blob blob{digest, size, reader, labels, "cellrun-" + digest};
  bool started_over = false;
  for (;;) {
    std::uint64_t resumed_at = 0;
    const auto attempt = [&]() -> base::Result<Attempt> {
      CallContext context(impl_->connection, call);
      return Upload(*impl_->content, context, blob).run(resumed_at);
    };
    switch (CR_TRY(attempt())) {
      case Attempt::kDone:
        return base::ok();
      case Attempt::kPresent: {
        const BlobInfo present = CR_TRY(blob_info(digest, call));
        if (present.size != size) {
          return base::Error(base::Errc::kDataLoss, "containerd has " + digest + " with another size than announced");
        }
        return set_blob_labels(digest, labels, call);
      }
      case Attempt::kLocked: {
        const auto pause =
            base::Deadline::after(std::min<base::Nanoseconds>(kRetryInterval, call.deadline.remaining()));
        if (call.deadline.expired() || CR_TRY(base::wait_readable(impl_->connection->stop_fd(), pause))) {
          return base::Error(base::Errc::kUnavailable,
                             "containerd: Content.Write " + digest + ": another writer holds it");
        }
        break;
      }
      case Attempt::kMismatch: {
        // What was uploaded is of no use to anyone, and would be resumed for ever.
        wire::content::AbortRequest request;
        request.set_ref(blob.ref);
        google::protobuf::Empty response;
        CR_CHECK(impl_->unary(*impl_->content, &wire::content::Content::Stub::Abort, request, response, call,
                              "Content.Abort " + digest));
        // The wrong bytes may have been an earlier attempt's: then ours get one chance of their own.
        if (resumed_at == 0 || std::exchange(started_over, true)) {
          return base::Error(base::Errc::kDataLoss, "the bytes do not match " + digest);
        }
        break;
      }
    }
  }
}

}  // namespace cellrund::containerd
