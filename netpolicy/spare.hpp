// Spare networks: a namespace and a veth pair, both ends down, whose tcx hooks are already taken by a program that
// drops everything. Attaching to a hook for the first time waits for an RCU grace period, and so twice for each cell;
// exchanging the program does not. A pool keeps a few at hand, so that connect() takes milliseconds.
//
// A spare has no name in any file system and no pin: descriptors hold it, so it is gone when this process is.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/fd.hpp"
#include "base/guarded.hpp"
#include "base/result.hpp"
#include "model/node.hpp"
#include "netpolicy/attach.hpp"
#include "netpolicy/router.hpp"
#include "netpolicy/rtnl.hpp"

namespace cellrund::netpolicy {

// Either end of the pair, with the sockets that act in its namespace from any thread.
struct End {
  Rtnl rtnl;
  base::UniqueFd packets;  // for the canary, unbound
  std::uint32_t ifindex = 0;
};

struct Spare {
  base::UniqueFd netns;  // of the cell's end
  End cell;
  End router;
  HeldHooks hooks;  // empty with clsact, which is attached to at once
};

struct SpareSpec {
  model::NodeTag node;
  int router_netns = -1;  // borrowed
  Attach attach = Attach::kTcx;
  int drop_all = -1;  // borrowed; the program that holds the hooks
};

// On a thread of its own. IPv6 is off in the new namespace before the pair exists.
base::Result<Spare> make_spare(const SpareSpec& spec);

class SparePool {
 public:
  // Keeps up to `target` spares; none with 0. What `spec` borrows must outlive the pool.
  SparePool(const SpareSpec& spec, std::size_t target);
  SparePool(const SparePool&) = delete;
  SparePool& operator=(const SparePool&) = delete;
  SparePool(SparePool&&) = delete;
  SparePool& operator=(SparePool&&) = delete;
  ~SparePool();

  // One that is ready, or one made now. Thread-safe, as is refill().
  base::Result<Spare> take();
  // Lets the pool make what is missing. Apart from take(), because making holds the kernel's rtnl lock for whole grace
  // periods, and who has just taken one needs that lock.
  void refill();

 private:
  struct Stock {
    std::vector<Spare> spares;
    bool wanted = true;  // since the last refill() or, once, from the start; false again after a failure
    bool ending = false;
  };
  void run();

  SpareSpec spec_;
  std::size_t target_;
  base::Guarded<Stock> stock_;
  std::condition_variable changed_;
  std::jthread thread_;  // last: starts when the rest exists
};

}  // namespace cellrund::netpolicy
