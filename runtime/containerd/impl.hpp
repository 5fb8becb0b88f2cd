// Private to runtime/containerd: the only headers that know gRPC.
#pragma once

#include <grpcpp/grpcpp.h>

#include <containerd/containers.grpc.pb.h>
#include <containerd/content.grpc.pb.h>
#include <containerd/events.grpc.pb.h>
#include <containerd/images.grpc.pb.h>
#include <containerd/introspection.grpc.pb.h>
#include <containerd/leases.grpc.pb.h>
#include <containerd/namespaces.grpc.pb.h>
#include <containerd/tasks.grpc.pb.h>
#include <containerd/version.grpc.pb.h>

#include <memory>
#include <set>
#include <stop_token>
#include <string>
#include <string_view>
#include <thread>

#include "base/fd.hpp"
#include "base/guarded.hpp"
#include "containerd/client.hpp"

namespace cellrund::containerd {

namespace wire {
namespace containers = ::containerd::services::containers::v1;
namespace content = ::containerd::services::content::v1;
namespace events = ::containerd::services::events::v1;
namespace images = ::containerd::services::images::v1;
namespace introspection = ::containerd::services::introspection::v1;
namespace leases = ::containerd::services::leases::v1;
namespace namespaces = ::containerd::services::namespaces::v1;
namespace tasks = ::containerd::services::tasks::v1;
namespace types = ::containerd::types;
namespace version = ::containerd::services::version::v1;
}  // namespace wire

// containerd's own cap on a message, both ways (defaults.DefaultMaxRecvMsgSize); gRPC C++ would stop at 4 MiB.
inline constexpr int kMaxMessageBytes = 16 << 20;
inline constexpr std::size_t kChunkBytes = 1 << 20;

// "Tasks.Create cr-…: NotFound: …" with containerd's text quoted and bounded.
[[nodiscard]] base::Error to_error(const grpc::Status& status, std::string_view what);
[[nodiscard]] base::Status to_status(const grpc::Status& status, std::string_view what);

template <typename Timestamp>
base::WallTime to_wall_time(const Timestamp& t) {
  return base::WallTime{t.seconds(), t.nanos()};
}
[[nodiscard]] Labels to_labels(const google::protobuf::Map<std::string, std::string>& map);

// What all calls of one client have in common. Shared, because gRPC's completion callbacks may come after the client's
// end.
class Connection {
 public:
  Connection(std::shared_ptr<grpc::Channel> channel, std::string containerd_namespace, base::UniqueFd stop_event);

  [[nodiscard]] const std::shared_ptr<grpc::Channel>& channel() const noexcept { return channel_; }
  [[nodiscard]] const std::string& containerd_namespace() const noexcept { return namespace_; }
  // Readable from shutdown() on.
  [[nodiscard]] int stop_fd() const noexcept { return stop_event_.get(); }
  void shutdown();
  // A context that is cancelled from the start when shutdown() came first.
  void enter(const std::shared_ptr<grpc::ClientContext>& context);
  void leave(const std::shared_ptr<grpc::ClientContext>& context);

 private:
  // Shared, so that shutdown() can cancel them without the lock: a cancellation may run a completion callback, and with
  // it leave(), on the spot.
  struct Calls {
    std::set<std::shared_ptr<grpc::ClientContext>> running;
    bool stopped = false;
  };
  std::shared_ptr<grpc::Channel> channel_;
  std::string namespace_;
  base::UniqueFd stop_event_;
  base::Guarded<Calls> calls_;
};

// One call's ClientContext with namespace, lease and deadline, registered for cancellation while it lives.
class CallContext {
 public:
  // Without a deadline: for streams and waits that end by cancellation.
  explicit CallContext(std::shared_ptr<Connection> connection);
  CallContext(std::shared_ptr<Connection> connection, const Call& call);
  CallContext(const CallContext&) = delete;
  CallContext& operator=(const CallContext&) = delete;
  CallContext(CallContext&&) = delete;
  CallContext& operator=(CallContext&&) = delete;
  ~CallContext();

  [[nodiscard]] grpc::ClientContext* get() noexcept { return context_.get(); }
  void cancel() { context_->TryCancel(); }

 private:
  std::shared_ptr<Connection> connection_;        // see Connection
  std::shared_ptr<grpc::ClientContext> context_;  // see Connection
};

// An eventfd, not signalled; and signalling it.
base::Result<base::UniqueFd> make_event();
void signal_event(int event_fd) noexcept;

// Runs the completion queue of one client on a thread of its own. Not gRPC's callback API: Debian 12's gRPC 1.51 serves
// that with threads of its own, and their end races with the last channel's ("ref_counted.h: assertion failed").
class Completions {
 public:
  class Tag {
   public:
    Tag() = default;
    Tag(const Tag&) = delete;
    Tag& operator=(const Tag&) = delete;
    Tag(Tag&&) = delete;
    Tag& operator=(Tag&&) = delete;
    virtual ~Tag() = default;
    // On the queue's thread; gRPC is done with everything of this call.
    virtual void complete() = 0;
  };

  Completions();
  Completions(const Completions&) = delete;
  Completions& operator=(const Completions&) = delete;
  Completions(Completions&&) = delete;
  Completions& operator=(Completions&&) = delete;
  // Waits for every call that was started on the queue: cancel them first.
  ~Completions();
  [[nodiscard]] grpc::CompletionQueue& queue() noexcept { return queue_; }

 private:
  grpc::CompletionQueue queue_;
  std::thread thread_;
};

// A unary call that ends in a readable descriptor. Shared between whoever waits and, by `self_`, the call itself, which
// may outlive the waiter's interest.
template <typename Request, typename Response>
class Pending : public Completions::Tag, public std::enable_shared_from_this<Pending<Request, Response>> {
 public:
  Pending(std::shared_ptr<Connection> connection, base::UniqueFd done_event)
      : context(std::move(connection)), done_event_(std::move(done_event)) {}
  Pending(std::shared_ptr<Connection> connection, const Call& call, base::UniqueFd done_event)
      : context(std::move(connection), call), done_event_(std::move(done_event)) {}

  // With `request` filled in; once. `method` is a stub's AsyncX.
  template <typename Stub, typename Reader>
  void start(Stub& stub, Reader (Stub::*method)(grpc::ClientContext*, const Request&, grpc::CompletionQueue*),
             Completions& completions) {
    self_ = this->shared_from_this();
    reader_ = (stub.*method)(context.get(), request, &completions.queue());
    reader_->Finish(&response, &status_, static_cast<Completions::Tag*>(this));
  }
  void complete() override {
    const auto last = std::move(self_);
    signal_event(done_event_.get());  // read(2) and poll(2) order what was written before for whoever sees it
  }
  [[nodiscard]] int fd() const noexcept { return done_event_.get(); }
  // Only after fd() became readable, like `response`.
  [[nodiscard]] base::Status outcome(std::string_view what) const { return to_status(status_, what); }

  CallContext context;
  Request request;
  Response response;

 private:
  base::UniqueFd done_event_;
  grpc::Status status_;
  std::unique_ptr<grpc::ClientAsyncResponseReader<Response>> reader_;
  std::shared_ptr<Pending> self_;
};

class Client::Impl {
 public:
  explicit Impl(std::shared_ptr<Connection> shared_connection);

  template <typename Stub, typename Request, typename Response>
  base::Status unary(Stub& stub, grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                     const Request& request, Response& response, const Call& call, std::string_view what) {
    if (call.deadline.expired()) {
      // gRPC would still send it, and now and then even get an answer.
      return base::Error(base::Errc::kDeadlineExceeded, "containerd: " + std::string(what) + ": no time left");
    }
    CallContext context(connection, call);
    const std::stop_callback stop(call.stop, [&context] { context.cancel(); });
    return to_status((stub.*method)(context.get(), request, &response), what);
  }

  std::shared_ptr<Connection> connection;  // see Connection
  std::unique_ptr<wire::containers::Containers::Stub> containers;
  std::unique_ptr<wire::content::Content::Stub> content;
  std::unique_ptr<wire::events::Events::Stub> events;
  std::unique_ptr<wire::images::Images::Stub> images;
  std::unique_ptr<wire::introspection::Introspection::Stub> introspection;
  std::unique_ptr<wire::leases::Leases::Stub> leases;
  std::unique_ptr<wire::namespaces::Namespaces::Stub> namespaces;
  std::unique_ptr<wire::tasks::Tasks::Stub> tasks;
  std::unique_ptr<wire::version::Version::Stub> version;
  Completions completions;  // last: its end waits for the calls, which need the rest
};

}  // namespace cellrund::containerd
