// The node's uplink: a veth pair from the router namespace to the host's, and what the host needs so that packets of
// cells go on from there to one interface of its own and nowhere else.
//
// What is changed on the host is recorded in the run folder before it is changed, and put back by lower_uplink(), after
// a crash as well. Several nodes may share an interface. All of this acts on the calling thread's namespace as the
// host's.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.hpp"
#include "model/node.hpp"

namespace cellrund::netpolicy {

struct UplinkSpec {
  std::string run_dir;
  model::NodeTag node;
  std::string interface;  // of the host
  std::string nft;
  int router_netns = -1;  // borrowed
};

// What packets of at most this length the interface takes; never more than a cell sends. kFailedPrecondition with what
// to do when there is no such interface.
base::Result<std::uint32_t> uplink_mtu(const std::string& interface);

// Makes the uplink or adopts what an earlier process left of it, whatever part that is; one that led to another
// interface is taken away first. On failure what was made so far stays for the next call or for lower_uplink().
base::Status raise_uplink(const UplinkSpec& spec);

// Takes it away and puts back what was changed. Never lowers what somebody else needs or has changed since. A node
// without an uplink is success.
base::Status lower_uplink(const std::string& run_dir, const model::NodeTag& node, const std::string& nft);

}  // namespace cellrund::netpolicy
