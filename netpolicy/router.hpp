// Router: the node's own network namespace, in which the host side of every cell's veth pair ends. Nothing listens in it
// but the resolvers of cells whose policy names hosts, nothing is forwarded but marked packets to its uplink, and an
// nftables table of its own drops whatever the filters did not mark.
//
// One per node. It outlives the daemon: open() adopts what an earlier process left. Thread-safe after open().
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "model/job_spec.hpp"
#include "model/journal.hpp"
#include "model/loosen.hpp"
#include "model/node.hpp"
#include "netpolicy/networked_cell.hpp"
#include "netpolicy/warden.hpp"

namespace cellrund::netpolicy {

struct RouterOptions {
  std::string run_dir;  // absolute; holds netns/ and bpf/
  model::NodeTag node;
  Attach attach = Attach::kAuto;
  std::string nft = "/usr/sbin/nft";
  std::string uplink = {};  // interface of the host that allowed packets leave by; empty: none
  std::string resolver;  // absolute path of cellrun-resolver
  std::vector<std::uint32_t> dns_upstreams;  // for it; empty: no policy may name hosts
  std::size_t spares = 2;  // networks kept ready; with tcx each saves its cell two RCU grace periods
};

// What one cell is given. Nothing: it reaches nothing.
struct NetworkPlan {
  model::EgressPolicy egress;
  std::vector<model::Relaxation> relaxations;
  std::vector<model::ExpectBlocked> expect_blocked;  // further targets for the canary
  Warden::OnAlarm on_alarm;                          // may be empty
};

class Router {
 public:
  // Makes or adopts <run>/netns, <run>/bpf (a bpffs), the namespace <run>/netns/cr-<tag>-router and its nftables table,
  // and has the kernel verify the filter once. Raises the uplink, or takes away one that was there before; the host's namespace
  // is the calling thread's. On failure what was made so far stays for the next open() or destroy().
  static base::Result<Router> open(const RouterOptions& options);

  // From nothing to a proven network that lets through what `plan` allows, in this order: IPv6 off → policy written and
  // frozen → filter attached → read back → both ends up → canary blocked and counted → lease. Intent is journalled before
  // the first object, identities once they exist. On failure the caller runs disconnect(), which copes with every part.
  // Errors: kFailedPrecondition when the proof failed (EgressUnproven), anything else is EgressAttachFailed.
  [[nodiscard]] base::Result<NetworkedCell> connect(const model::CellName& name, model::Journal& journal,
                                                    const NetworkPlan& plan = {}) const;

  // Makes up for the spare network that connect() took, on a thread of its own. Call it once the cell runs: beside its start
  // the two would take each other's time.
  void replenish() const;

  // Sends the canary of connect() again, from the cell's namespace, after the workload's end and before disconnect().
  // What is not proven says why. An error means that it could not be tried.
  struct EndProof {
    model::EndCanary canary;
    bool refuted = false;  // a frame came through, or was neither counted nor cut off: EgressUnproven
  };
  [[nodiscard]] base::Result<EndProof> prove_end(const NetworkedCell& cell) const;

  // The node's kill switch: from the return of engage on no packet from or to any cell passes, and no flow from before
  // is continued after a release. One map write; it holds while the daemon is down, and until the machine is restarted.
  [[nodiscard]] base::Status set_kill_switch(bool engaged) const;
  [[nodiscard]] base::Result<bool> kill_switch() const;  // as the kernel has it
  // Whether it stops this cell: engaged, and both of the cell's programs read this very map. kNotFound: no filter.
  [[nodiscard]] base::Result<bool> kill_switch_cuts(const model::CellName& name) const;

  // The account of a live cell as of now, with what it has asked its resolver. kNotFound: it has no proven filter, not yet or no more.
  [[nodiscard]] base::Result<model::EgressFacts> flows(const model::CellName& name) const;

  [[nodiscard]] Attach attach() const noexcept;  // kTcx or kClsact: what was taken
  [[nodiscard]] const std::string& netns_path() const noexcept;

  // Removes uplink, namespace and mounts that open() made. Refuses nothing: cells still connected lose their links.
  // Failures are collected. The object is of no use afterwards.
  [[nodiscard]] static std::vector<std::string> destroy(const std::string& run_dir, const model::NodeTag& node);

  Router(Router&&) noexcept;
  Router& operator=(Router&&) noexcept;
  Router(const Router&) = delete;
  Router& operator=(const Router&) = delete;
  ~Router();

 private:
  struct State;
  explicit Router(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace cellrund::netpolicy
