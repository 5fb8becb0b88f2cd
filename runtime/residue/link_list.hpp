// Network links of one namespace, by our own RTM_GETLINK (rtnetlink(7)). Internal to residue.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"

namespace cellrund::residue {

struct Link {
  std::uint32_t ifindex = 0;
  std::string name;
};

// A route socket of the namespace the calling thread is in; it stays with that namespace.
base::Result<base::UniqueFd> open_route_socket();
// Every link. Repeats a dump that the kernel marked as interrupted.
base::Result<std::vector<Link>> list_links(int route_socket, base::Deadline deadline);

}  // namespace cellrund::residue
