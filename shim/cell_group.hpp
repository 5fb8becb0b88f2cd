// The control group of a cell, made by the shim or found as the spec's cgroupsPath.
#pragma once

#include "host/cgroup.hpp"

namespace cellrund::shim {

struct CellGroup {
  host::CgroupTree tree;
  host::Cgroup cgroup;
  bool ours = false;  // made by the shim, so removed by it

  // SIGKILL to whatever is in it. The VMM, its only member, is killed by its pidfd: a failure here is no more than late.
  void kill() const;
  // If it is ours. Failures are logged, and `delete` tries again.
  void remove() const;
};

}  // namespace cellrund::shim
