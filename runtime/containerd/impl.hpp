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
#include <string>
#include <string_view>

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

class Client::Impl {
 public:
  explicit Impl(std::shared_ptr<Connection> shared_connection);

  template <typename Stub, typename Request, typename Response>
  base::Status unary(Stub& stub, grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                     const Request& request, Response& response, const Call& call, std::string_view what) {
    CallContext context(connection, call);
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
};

// A unary call on gRPC's threads whose end makes a descriptor readable. Kept alive by its own callback until then.
template <typename Request, typename Response>
class Pending {
 public:
  Pending(std::shared_ptr<Connection> connection, base::UniqueFd done_event)
      : context(std::move(connection)), done_event_(std::move(done_event)) {}
  Pending(std::shared_ptr<Connection> connection, const Call& call, base::UniqueFd done_event)
      : context(std::move(connection), call), done_event_(std::move(done_event)) {}

  void complete(const grpc::Status& status);
  [[nodiscard]] int fd() const noexcept { return done_event_.get(); }
  // Only after fd() became readable.
  [[nodiscard]] base::Status outcome(std::string_view what) { return to_status(*status_.lock(), what); }

  CallContext context;
  Request request;
  Response response;  // gRPC writes it before complete()

 private:
  base::UniqueFd done_event_;
  base::Guarded<grpc::Status> status_;
};

// An eventfd, not signalled; and signalling it.
base::Result<base::UniqueFd> make_event();
void signal_event(int event_fd) noexcept;

template <typename Request, typename Response>
void Pending<Request, Response>::complete(const grpc::Status& status) {
  *status_.lock() = status;
  signal_event(done_event_.get());
}

}  // namespace cellrund::containerd
