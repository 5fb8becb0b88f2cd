// The two native sockets of a node: cellrund.sock for the group `cellrun`, admin.sock for root alone. One thread
// accepts; each connection is one bounded thread (session.hpp).
#pragma once

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>

#include "base/result.hpp"
#include "cell/node.hpp"
#include "daemon/config.hpp"

namespace cellrund::daemon {

struct ServerOptions {
  std::string socket;
  std::string admin_socket;
  std::optional<gid_t> group;  // of the ordinary socket; absent: root's alone
  Config::Limits limits;
  std::string version;
  std::string node_id;
};

class Server {
 public:
  // Binds both sockets and starts to serve. `node` must outlive the server.
  static base::Result<std::unique_ptr<Server>> start(ServerOptions options, cell::Node& node);
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;
  Server(Server&&) = delete;
  Server& operator=(Server&&) = delete;
  // Stops: no new connections, the open ones are shut down, all threads have ended. Takes about half a second at most
  // beyond the node calls under way.
  ~Server();

 private:
  class Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace cellrund::daemon
