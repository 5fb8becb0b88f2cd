// The composition root: builds every part of a node in the order in which they depend on each other, and nothing else.
// Owned by main(); run() blocks until a signal asks it to end.
#pragma once

#include <memory>

#include "base/result.hpp"
#include "daemon/config.hpp"

namespace cellrund::daemon {

class App {
 public:
  // Everything up to, but not including, the sockets: ledger, keeper and containerd, boot probe, router, recovery of the
  // predecessor's cells. On failure nothing serves; what was made is adopted by the next start.
  static base::Result<std::unique_ptr<App>> build(const Config& config);
  App(const App&) = delete;
  App& operator=(const App&) = delete;
  App(App&&) = delete;
  App& operator=(App&&) = delete;
  ~App();

  // Confines the process, serves until SIGTERM or SIGINT, then cancels every job (NodeShutdown), seals and returns.
  base::Status run();

 private:
  struct Parts;
  explicit App(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

// What `cellrund --remove-node` does, with no daemon running: removes the router namespace, the node's mounts and its
// cgroup folders as far as they are empty. Ends no cell: start and stop the daemon for that. Returns what is left.
base::Result<std::vector<std::string>> remove_node(const Config& config);

}  // namespace cellrund::daemon
