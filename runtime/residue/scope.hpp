// What a scan looks for, and where. Plain values; the caller fills them from the journal and the configuration.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "model/inventory.hpp"
#include "model/node.hpp"

namespace cellrund::residue {

// The containerd whose objects are looked at. Its answers are one source among others: the bundles, sockets and
// processes that it manages are looked at beside it.
struct ContainerdPlace {
  std::string socket;             // /run/cellrun/containerd.sock
  std::string state;              // "state" of its config: bundles in <state>/io.containerd.runtime.v2.task/<namespace>
  std::string root;               // "root" of its config: the same folder, kept over a restart
  std::string name_space = "cellrun";
  std::string shim_sockets = "/run/containerd/s";  // fixed in containerd (defaults.DefaultStateDir + "/s")
};

// User ids base … base + count - 1.
struct UidRange {
  std::uint32_t base = 0;
  std::uint32_t count = 0;
};

struct Paths {
  std::string run_dir = "/run/cellrun";
  std::string state_dir;     // empty: none; only the node makes names below it
  // Both under run_dir unless the configuration says otherwise.
  std::string netns_dir;     // empty: <run_dir>/netns
  std::string bpf_dir;       // empty: <run_dir>/bpf, a bpffs
  std::string router_netns;  // empty: <netns_dir>/cr-<tag>-router
  // Absent: this lane (or node) has no containerd, and its probes are left out of the report. An inventory that names
  // containerd objects is then UNKNOWN.
  std::optional<ContainerdPlace> containerd;
  std::string proc = "/proc";
};

// How long a scan looks again before it believes what it sees. Kernel objects are freed behind our back (BPF by RCU,
// network namespaces by a work queue, zombies by their parent), and containerd may be restarting.
struct Patience {
  base::Nanoseconds kernel = std::chrono::seconds(2);
  base::Nanoseconds containerd = std::chrono::seconds(10);
};

// One cell after its teardown.
struct CellScope {
  model::NodeTag node;
  std::string uid;
  std::optional<std::uint32_t> slot;     // claims link and BPF names of that slot; absent: journalled names only
  std::optional<std::uint32_t> vmm_uid;  // set only if no other live cell runs under this uid
  std::vector<UidRange> node_uids;       // beside root: VMMs and boxes. A name that anybody else gave is no claim
  model::Inventory inventory;            // everything the journal intended or recorded
  // The boot in which the inventory's identities were recorded; empty: the present one. After a reboot pids, BPF ids,
  // inode numbers of namespaces and cookies name other objects, so only names and files on disk are looked for then.
  std::string boot_id;
  Paths paths;
  Patience patience;
};

// A cell that is allowed to exist.
struct LiveCell {
  std::string uid;
  std::optional<std::uint32_t> slot;
  model::Inventory inventory;
};

// A whole node: everything that carries its tag and belongs to no live cell.
struct NodeScope {
  model::NodeTag node;
  std::vector<LiveCell> live;
  std::vector<UidRange> node_uids;  // as in CellScope
  // Of cells that should be gone: their identities are looked for as well. They may be of several boots, so each goes
  // through of_this_boot() first.
  model::Inventory inventory;
  Paths paths;
  Patience patience;
};

// The inventory without the identities that mean nothing in the present boot, if it is not of that one. An empty
// `boot_id` is the present boot.
[[nodiscard]] model::Inventory of_this_boot(model::Inventory inventory, const std::string& boot_id);

}  // namespace cellrund::residue
