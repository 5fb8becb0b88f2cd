// Closer: closes descriptors on a thread of its own. Closing a packet socket waits for an RCU grace period
// (packet_release in net/packet/af_packet.c), some ten milliseconds that no cell's start has to wait for.
#pragma once

#include <condition_variable>
#include <thread>
#include <vector>

#include "base/fd.hpp"
#include "base/guarded.hpp"

namespace cellrund::netpolicy {

class Closer {
 public:
  Closer();
  Closer(const Closer&) = delete;
  Closer& operator=(const Closer&) = delete;
  Closer(Closer&&) = delete;
  Closer& operator=(Closer&&) = delete;
  // Waits until everything handed over is closed.
  ~Closer();

  // Thread-safe; returns at once.
  void close_later(base::UniqueFd fd);

 private:
  struct Queue {
    std::vector<base::UniqueFd> fds;
    bool ending = false;
  };
  void run();

  base::Guarded<Queue> queue_;
  std::condition_variable changed_;
  std::jthread thread_;  // last: starts when the rest exists
};

}  // namespace cellrund::netpolicy
