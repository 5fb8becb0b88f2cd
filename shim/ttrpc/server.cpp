#include "shim/ttrpc/server.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>

#include "shim/ttrpc/connection.hpp"

namespace cellrund::shim::ttrpc {
namespace {

// containerd keeps one; a restarted one comes while the old is not yet noticed dead; `ctr shim` is one more.
constexpr std::size_t kMaxConnections = 16;

// google.rpc.Code, as google/rpc/code.proto numbers them: containerd maps them back to its own error kinds.
int rpc_code(base::Errc code) noexcept {
  switch (code) {
    case base::Errc::kUnknown: return 2;
    case base::Errc::kInvalidArgument: return 3;
    case base::Errc::kNotFound: return 5;
    case base::Errc::kAlreadyExists: return 6;
    case base::Errc::kPermissionDenied: return 7;
    case base::Errc::kResourceExhausted: return 8;
    case base::Errc::kFailedPrecondition: return 9;
    case base::Errc::kUnimplemented: return 12;
    case base::Errc::kUnavailable: return 14;
    case base::Errc::kDeadlineExceeded: return 4;
    case base::Errc::kCancelled: return 1;
    case base::Errc::kDataLoss: return 15;
  }
  return 2;
}

}  // namespace

Reply::~Reply() {
  if (!connection_.expired()) {
    finish(rpc_code(base::Errc::kCancelled), "the shim is shutting down", {});
  }
}

void Reply::send(std::string_view payload) && { finish(0, {}, payload); }

void Reply::fail(const base::Error& error) && { finish(rpc_code(error.code()), error.message(), {}); }

void Reply::finish(int code, std::string_view message, std::string_view payload) {
  if (const std::shared_ptr<Connection> connection = connection_.lock()) {
    connection_.reset();
    connection->answer(stream_, code, message, payload);
  }
}

base::Result<std::unique_ptr<Server>> Server::create(Loop& loop, base::UniqueFd listener, Handler handler) {
  CR_CHECK(base::set_nonblocking(listener.get(), true));
  std::unique_ptr<Server> server(new Server(loop, std::move(listener), std::move(handler)));
  CR_CHECK(loop.watch(server->listener_.get(), EPOLLIN, [raw = server.get()](std::uint32_t) { raw->accept_all(); }));
  return server;
}

Server::~Server() {
  loop_.unwatch(listener_.get());
  for (const auto& [fd, connection] : connections_) {
    connection->stop();
  }
}

bool Server::flushed() const {
  return std::all_of(connections_.begin(), connections_.end(), [](const auto& entry) { return entry.second->flushed(); });
}

void Server::accept_all() {
  for (;;) {
    base::UniqueFd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket) {
      return;  // EAGAIN, or a peer that left already; the next event tries again
    }
    ucred peer{};
    socklen_t size = sizeof(peer);
    const bool known = ::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0;
    if (!known || (peer.uid != 0 && peer.uid != ::geteuid()) || connections_.size() >= kMaxConnections) {
      continue;
    }
    const int fd = socket.get();
    auto connection = std::make_shared<Connection>(*this, std::move(socket));
    if (connection->start().ok()) {
      connections_.insert_or_assign(fd, std::move(connection));
    }
  }
}

void Server::close(int fd) {
  const auto found = connections_.find(fd);
  if (found != connections_.end()) {
    const std::shared_ptr<Connection> connection = found->second;
    connections_.erase(found);
    connection->stop();
  }
}

}  // namespace cellrund::shim::ttrpc
