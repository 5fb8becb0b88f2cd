#include "containerd/client.hpp"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "base/log.hpp"
#include "containerd/impl.hpp"

namespace cellrund::containerd {
namespace {

// gRPC metadata keys (containerd namespaces/grpc.go and leases/grpc.go).
constexpr const char* kNamespaceHeader = "containerd-namespace";
constexpr const char* kLeaseHeader = "containerd-lease";
constexpr std::size_t kMaxNamespaceLength = 76;  // containerd identifiers.Validate
constexpr std::size_t kMaxServerText = 400;

base::Errc to_errc(grpc::StatusCode code) noexcept {
  switch (code) {
    case grpc::CANCELLED:
      return base::Errc::kCancelled;
    case grpc::INVALID_ARGUMENT:
      return base::Errc::kInvalidArgument;
    case grpc::OUT_OF_RANGE:
      return base::Errc::kInvalidArgument;
    case grpc::DEADLINE_EXCEEDED:
      return base::Errc::kDeadlineExceeded;
    case grpc::NOT_FOUND:
      return base::Errc::kNotFound;
    case grpc::ALREADY_EXISTS:
      return base::Errc::kAlreadyExists;
    case grpc::PERMISSION_DENIED:
      return base::Errc::kPermissionDenied;
    case grpc::UNAUTHENTICATED:
      return base::Errc::kPermissionDenied;
    case grpc::RESOURCE_EXHAUSTED:
      return base::Errc::kResourceExhausted;
    case grpc::FAILED_PRECONDITION:
      return base::Errc::kFailedPrecondition;
    case grpc::ABORTED:
      return base::Errc::kFailedPrecondition;
    case grpc::UNIMPLEMENTED:
      return base::Errc::kUnimplemented;
    case grpc::UNAVAILABLE:
      return base::Errc::kUnavailable;
    case grpc::DATA_LOSS:
      return base::Errc::kDataLoss;
    case grpc::OK:
    case grpc::UNKNOWN:
    case grpc::INTERNAL:
    case grpc::DO_NOT_USE:
      break;
  }
  return base::Errc::kUnknown;
}

gpr_timespec to_gpr(base::Deadline deadline) {
  constexpr std::int64_t kNanosPerSecond = 1'000'000'000;
  gpr_timespec out{};
  out.clock_type = GPR_CLOCK_MONOTONIC;  // gRPC's chrono overload would take the wall clock, which can step
  out.tv_sec = deadline.monotonic_ns() / kNanosPerSecond;
  out.tv_nsec = static_cast<std::int32_t>(deadline.monotonic_ns() % kNanosPerSecond);
  return out;
}

bool is_identifier(std::string_view text) {
  const auto alphanumeric = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
  };
  return !text.empty() && text.size() <= kMaxNamespaceLength && alphanumeric(text.front()) &&
         alphanumeric(text.back()) && std::all_of(text.begin(), text.end(), [&](char c) {
           return alphanumeric(c) || c == '-' || c == '_' || c == '.';
         });
}

}  // namespace

base::Error to_error(const grpc::Status& status, std::string_view what) {
  const base::Errc code = to_errc(status.error_code());
  std::string message = "containerd: ";
  message.append(what).append(": ").append(base::to_string(code));
  if (!status.error_message().empty()) {
    message.append(": ").append(base::log::quoted(status.error_message(), kMaxServerText));
  }
  return base::Error(code, std::move(message));
}

base::Status to_status(const grpc::Status& status, std::string_view what) {
  if (status.ok()) {
    return base::ok();
  }
  return to_error(status, what);
}

Labels to_labels(const google::protobuf::Map<std::string, std::string>& map) {
  return {map.begin(), map.end()};
}

base::Result<base::UniqueFd> make_event() {
  base::UniqueFd fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!fd) {
    return base::Error::from_errno("eventfd");
  }
  return fd;
}

void signal_event(int event_fd) noexcept {
  const std::uint64_t one = 1;
  (void)!::write(event_fd, &one, sizeof one);  // fails only when the counter is full, and then it is readable as well
}

Connection::Connection(std::shared_ptr<grpc::Channel> channel, std::string containerd_namespace,
                       base::UniqueFd stop_event)
    : channel_(std::move(channel)), namespace_(std::move(containerd_namespace)), stop_event_(std::move(stop_event)) {}

void Connection::shutdown() {
  std::set<std::shared_ptr<grpc::ClientContext>> running;
  {
    auto calls = calls_.lock();
    calls->stopped = true;
    running.swap(calls->running);
  }
  signal_event(stop_event_.get());
  for (const auto& context : running) {
    context->TryCancel();
  }
}

void Connection::enter(const std::shared_ptr<grpc::ClientContext>& context) {
  auto calls = calls_.lock();
  if (calls->stopped) {
    context->TryCancel();  // nothing runs on it yet: the call will fail when it starts
  } else {
    calls->running.insert(context);
  }
}

void Connection::leave(const std::shared_ptr<grpc::ClientContext>& context) {
  calls_.lock()->running.erase(context);
}

CallContext::CallContext(std::shared_ptr<Connection> connection)
    : connection_(std::move(connection)), context_(std::make_shared<grpc::ClientContext>()) {
  context_->AddMetadata(kNamespaceHeader, connection_->containerd_namespace());
  connection_->enter(context_);
}

CallContext::CallContext(std::shared_ptr<Connection> connection, const Call& call)
    : CallContext(std::move(connection)) {
  context_->set_deadline(to_gpr(call.deadline));
  if (!call.lease.empty()) {
    context_->AddMetadata(kLeaseHeader, call.lease);
  }
}

CallContext::~CallContext() {
  connection_->leave(context_);
}

Completions::Completions()
    : thread_([this] {
        void* tag = nullptr;
        bool good = false;  // always, for the Finish of a unary call
        while (queue_.Next(&tag, &good)) {
          static_cast<Tag*>(tag)->complete();
        }
      }) {}

Completions::~Completions() {
  queue_.Shutdown();
  thread_.join();
}

Client::Impl::Impl(std::shared_ptr<Connection> shared_connection)
    : connection(std::move(shared_connection)),
      containers(wire::containers::Containers::NewStub(connection->channel())),
      content(wire::content::Content::NewStub(connection->channel())),
      events(wire::events::Events::NewStub(connection->channel())),
      images(wire::images::Images::NewStub(connection->channel())),
      introspection(wire::introspection::Introspection::NewStub(connection->channel())),
      leases(wire::leases::Leases::NewStub(connection->channel())),
      namespaces(wire::namespaces::Namespaces::NewStub(connection->channel())),
      tasks(wire::tasks::Tasks::NewStub(connection->channel())),
      version(wire::version::Version::NewStub(connection->channel())) {}

Client::Client(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Client::Client(Client&&) noexcept = default;
Client& Client::operator=(Client&&) noexcept = default;
Client::~Client() {
  if (impl_ != nullptr) {
    shutdown();
  }
}

base::Result<Client> Client::create(const std::string& socket_path, const std::string& containerd_namespace) {
  if (socket_path.empty() || socket_path.front() != '/' || socket_path.size() >= sizeof(sockaddr_un::sun_path)) {
    return base::Error(base::Errc::kInvalidArgument, "containerd socket " + base::log::quoted(socket_path) +
                                                         ": not an absolute path of a Unix socket");
  }
  if (!is_identifier(containerd_namespace)) {
    return base::Error(base::Errc::kInvalidArgument,
                       "containerd namespace " + base::log::quoted(containerd_namespace) + ": malformed");
  }
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  arguments.SetMaxSendMessageSize(kMaxMessageBytes);
  // gRPC 1.57 and later would send the percent-encoded socket path as :authority (grpc issue 38142).
  arguments.SetString(GRPC_ARG_DEFAULT_AUTHORITY, "localhost");
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  // Never share a connection with another client of the process: shutdown and back-off are this client's own.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  // After a restart of containerd calls should succeed again at once, not after gRPC's usual seconds to minutes.
  constexpr int kFirstBackoffMs = 50;
  constexpr int kLargestBackoffMs = 500;
  constexpr int kConnectTimeoutMs = 5000;  // gRPC's name for it is misleading
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, kFirstBackoffMs);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, kConnectTimeoutMs);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kLargestBackoffMs);
  auto channel = grpc::CreateCustomChannel("unix:" + socket_path, grpc::InsecureChannelCredentials(), arguments);
  auto connection = std::make_shared<Connection>(std::move(channel), containerd_namespace, CR_TRY(make_event()));
  return Client(std::make_unique<Impl>(std::move(connection)));
}

void Client::shutdown() {
  impl_->connection->shutdown();
}

base::Status Client::wait_ready(base::Deadline deadline) {
  for (;;) {
    const base::Deadline attempt =
        base::Deadline::after(std::min<base::Nanoseconds>(kQueryTimeout, deadline.remaining()));
    auto answer = version(attempt);
    if (answer.ok()) {
      return base::ok();
    }
    const base::Errc code = answer.error().code();
    if (deadline.expired() || (code != base::Errc::kUnavailable && code != base::Errc::kDeadlineExceeded)) {
      return std::move(answer).error().context("wait for containerd");
    }
    const base::Deadline pause =
        base::Deadline::after(std::min<base::Nanoseconds>(kRetryInterval, deadline.remaining()));
    (void)CR_TRY(base::wait_readable(impl_->connection->stop_fd(), pause));
  }
}

}  // namespace cellrund::containerd
