// The probes: each looks at one source of truth for objects of the subject. Internal to residue; scan.cpp runs them.
// A probe never stops at a failure: what it could not read it reports as blindness and goes on.
#pragma once

#include <optional>

#include "base/clock.hpp"
#include "residue/look.hpp"
#include "residue/subject.hpp"
#include "residue/walk.hpp"

namespace cellrund::residue {

// What one pass over the probes shares. The walk over /proc is made once, by the first probe that needs it.
class Pass {
 public:
  Pass(const Subject& subject, base::Deadline deadline) : subject_(subject), deadline_(deadline) {}
  [[nodiscard]] const Subject& subject() const noexcept { return subject_; }
  [[nodiscard]] base::Deadline deadline() const noexcept { return deadline_; }
  [[nodiscard]] const Walk& walk() {
    if (!walk_) {
      walk_ = walk_processes(subject_, deadline_);
    }
    return *walk_;
  }
  // The walk's failures are the blindness of every probe that stands on it.
  void add_walk_failures(Look& look) {
    for (const std::string& failure : walk().failures) {
      look.blind(failure);
    }
    if (!walk().closed_init.empty()) {
      look.note(walk().closed_init);
    }
  }

 private:
  const Subject& subject_;
  base::Deadline deadline_;
  std::optional<Walk> walk_;
};

Look look_at_processes(Pass& pass);
Look look_at_cgroups(Pass& pass);
Look look_at_network_namespaces(Pass& pass);
Look look_at_links(Pass& pass);
Look look_at_mounts(Pass& pass);
Look look_at_bpf_objects(Pass& pass);
Look look_at_bpf_pins(Pass& pass);
Look look_at_containerd(Pass& pass);  // only with paths().containerd, or an inventory that names its objects
Look look_at_bundles(Pass& pass);     // the same
Look look_at_sockets(Pass& pass);
Look look_at_files(Pass& pass);
Look look_at_open_files(Pass& pass);

// Mount points of the given file system types in our own mount namespace.
struct MountPoint {
  std::string path;
  std::string type;
};
base::Result<std::vector<MountPoint>> mount_points(const std::string& proc, const std::vector<std::string_view>& types);

}  // namespace cellrund::residue
