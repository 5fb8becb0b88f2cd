// What connect() proved about a cell's filter, as something that can be held against the kernel again at any time.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.hpp"
#include "model/node.hpp"
#include "netpolicy/attach.hpp"
#include "netpolicy/rtnl.hpp"

namespace cellrund::netpolicy {

struct Proof {
  std::string run_dir;
  model::CellName name;
  Attachment attachment;
  std::uint32_t firewall = 0;  // ruleset generation

  // In the router namespace, whose socket `rtnl` is: the same link, our two programs alone at its hooks, the filter
  // enforcing, the firewall untouched. kFailedPrecondition or kNotFound names the first difference.
  [[nodiscard]] base::Status hold(Rtnl& rtnl) const;
};

}  // namespace cellrund::netpolicy
