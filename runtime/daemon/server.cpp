#include "daemon/server.hpp"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <list>
#include <system_error>
#include <thread>
#include <utility>

#include "api/frame.hpp"
#include "base/file.hpp"
#include "base/guarded.hpp"
#include "base/log.hpp"
#include "daemon/listen.hpp"
#include "daemon/session.hpp"

namespace cellrund::daemon {
namespace {

using base::Errc;
using base::Error;

// Admin connections have room of their own, so that no number of users keeps root out.
constexpr std::int64_t kMaxAdminConnections = 16;

base::Result<model::PeerFacts> peer_of(int fd) {
  ucred credentials{};
  socklen_t size = sizeof(credentials);
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) {
    return Error::from_errno("SO_PEERCRED");
  }
  return model::PeerFacts{credentials.uid, credentials.gid, credentials.pid};
}

// Says why, as far as the peer's buffer takes it at once.
void turn_away(int fd, Error error) {
  (void)api::write_frame(fd, api::encode(api::Response(api::failure_from(error))),
                         base::Deadline::after(base::Nanoseconds(0)));
}

}  // namespace

class Server::Impl {
 public:
  Impl(ServerOptions options, cell::Node& node, Listener ordinary, Listener admin, base::UniqueFd wake)
      : options_(std::move(options)), refusals_(options_.limits.refusals_per_second),
        context_{node, refusals_, options_.limits, options_.version, options_.node_id, stopping_},
        ordinary_(std::move(ordinary)), admin_(std::move(admin)), wake_(std::move(wake)),
        acceptor_([this] { accept_loop(); }) {}

  ~Impl() {
    stopping_ = true;
    const std::uint64_t one = 1;
    // An eventfd takes this always.
    (void)base::write_all(wake_.get(), {reinterpret_cast<const std::uint8_t*>(&one), sizeof(one)});
    acceptor_.join();
    std::list<Connection> all;
    {
      auto connections = connections_.lock();
      for (const Connection& connection : *connections) {
        if (!connection.done) {
          (void)::shutdown(connection.fd, SHUT_RDWR);  // wakes its thread; only that thread closes
        }
      }
      all.splice(all.end(), *connections);
    }
    // ~jthread joins. A thread that ends now finds its entry in `all`, which lives until the last one has ended.
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  Impl(Impl&&) = delete;
  Impl& operator=(Impl&&) = delete;

 private:
  struct Connection {
    int fd = -1;  // owned by the thread; valid while !done, under the lock
    std::uint32_t uid = 0;
    Door door = Door::kOrdinary;
    bool done = false;
    std::jthread thread;
  };

  void accept_loop() {
    std::array<pollfd, 3> waits{{{wake_.get(), POLLIN, 0}, {ordinary_.fd(), POLLIN, 0}, {admin_.fd(), POLLIN, 0}}};
    while (!stopping_) {
      const int ready = ::poll(waits.data(), waits.size(), -1);
      if (ready < 0 && errno != EINTR) {
        base::log::error(Error::from_errno("server: poll").message());
        return;
      }
      if (ready <= 0 || (waits[0].revents & POLLIN) != 0) {
        continue;
      }
      if (waits[1].revents != 0) {
        accept_one(ordinary_.fd(), Door::kOrdinary);
      }
      if (waits[2].revents != 0) {
        accept_one(admin_.fd(), Door::kAdmin);
      }
      reap();
    }
  }

  void accept_one(int listener, Door door) {
    base::UniqueFd fd(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd) {
      const int err = errno;
      if (err == EMFILE || err == ENFILE || err == ENOBUFS || err == ENOMEM) {
        // The connection stays in the backlog and the listener readable: wait for a connection to end instead of
        // spinning. The stop flag is looked at in between.
        base::log::warn(Error::from_errno("server: accept", err).message() + ", ignoring");
        pollfd wake{wake_.get(), POLLIN, 0};
        (void)::poll(&wake, 1, 100);
      }
      return;
    }
    const base::Result<model::PeerFacts> peer = peer_of(fd.get());
    if (!peer) {
      return;
    }
    if (door == Door::kAdmin && peer->uid != 0 && peer->uid != ::geteuid()) {
      turn_away(fd.get(), Error(Errc::kPermissionDenied, "the admin socket is root's alone"));
      return;
    }
    if (!has_room(peer->uid, door)) {
      turn_away(fd.get(), Error(Errc::kResourceExhausted, "too many connections"));
      return;
    }
    start_session(std::move(fd), *peer, door);
  }

  bool has_room(std::uint32_t uid, Door door) {
    std::int64_t of_door = 0;
    std::int64_t of_uid = 0;
    auto connections = connections_.lock();
    for (const Connection& connection : *connections) {
      if (!connection.done && connection.door == door) {
        ++of_door;
        of_uid += connection.uid == uid ? 1 : 0;
      }
    }
    return door == Door::kAdmin ? of_door < kMaxAdminConnections
                                : of_door < options_.limits.connections && of_uid < options_.limits.connections_per_uid;
  }

  void start_session(base::UniqueFd fd, const model::PeerFacts& peer, Door door) {
    auto connections = connections_.lock();
    Connection& connection = connections->emplace_back();
    connection.fd = fd.get();
    connection.uid = peer.uid;
    connection.door = door;
    try {
      connection.thread = std::jthread([this, &connection, peer, door, owned = std::move(fd)]() mutable {
        Session(context_, owned.get(), peer, door).run();
        // Marked before the descriptor is closed, so that nobody shuts a recycled number down.
        auto guard = connections_.lock();
        connection.done = true;
        owned.reset();
      });
    } catch (const std::system_error&) {  // no more threads: the descriptor went with the lambda
      connections->pop_back();
    }
  }

  // Joins the threads of ended connections.
  void reap() {
    std::list<Connection> ended;
    auto connections = connections_.lock();
    for (auto it = connections->begin(); it != connections->end();) {
      const auto next = std::next(it);
      if (it->done) {
        ended.splice(ended.end(), *connections, it);
      }
      it = next;
    }
    // `connections` unlocks before `ended` joins: destroyed in reverse order.
  }

  ServerOptions options_;
  RefusalBudget refusals_;
  std::atomic<bool> stopping_ = false;
  SessionContext context_;
  Listener ordinary_;
  Listener admin_;
  base::UniqueFd wake_;
  base::Guarded<std::list<Connection>> connections_;
  std::thread acceptor_;  // last: it uses everything above
};

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() = default;

base::Result<std::unique_ptr<Server>> Server::start(ServerOptions options, cell::Node& node) {
  Listener ordinary = CR_TRY(Listener::open(options.socket, options.group));
  Listener admin = CR_TRY(Listener::open(options.admin_socket, std::nullopt));
  base::UniqueFd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake) {
    return Error::from_errno("eventfd");
  }
  try {
    return std::unique_ptr<Server>(new Server(
        std::make_unique<Impl>(std::move(options), node, std::move(ordinary), std::move(admin), std::move(wake))));
  } catch (const std::system_error& error) {
    return Error(Errc::kResourceExhausted, std::string("start the server: ") + error.what());
  }
}

}  // namespace cellrund::daemon
