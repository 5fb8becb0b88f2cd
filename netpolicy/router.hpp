// Router: the node's own network namespace, in which the host side of every cell's veth pair ends. Nothing listens in
// it, nothing is forwarded out of it, and an nftables table of its own drops whatever the filters did not mark.
//
// One per node. It outlives the daemon: open() adopts what an earlier process left. Thread-safe after open().
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "model/job_spec.hpp"
#include "model/journal.hpp"
#include "model/node.hpp"
#include "netpolicy/networked_cell.hpp"

namespace cellrund::netpolicy {

// How the filter is attached: tcx links (kernel 6.6 and later), or filters on a clsact qdisc. kAuto takes tcx where the
// kernel has it; what was taken stands in the evidence. tcx survives the removal of qdiscs and is held by pinned links;
// clsact attaches and goes without waiting for RCU grace periods, which counts on machines whose CPUs are all taken.
enum class Attach { kAuto, kTcx, kClsact };
[[nodiscard]] std::string_view to_string(Attach attach) noexcept;
base::Result<Attach> parse_attach(std::string_view text);

struct RouterOptions {
  std::string run_dir;  // absolute; holds netns/ and bpf/
  model::NodeTag node;
  Attach attach = Attach::kAuto;
  std::string nft = "/usr/sbin/nft";
  std::size_t spares = 2;  // networks kept ready; with tcx each saves its cell two RCU grace periods
};

class Router {
 public:
  // Makes or adopts <run>/netns, <run>/bpf (a bpffs), the namespace <run>/netns/cr-<tag>-router and its nftables table,
  // and has the kernel verify the filter once. On failure what was made so far stays for the next open() or destroy().
  static base::Result<Router> open(const RouterOptions& options);

  // From nothing to a proven deny-all network, in this order: IPv6 off → filter attached → read back → both ends up →
  // canary blocked and counted. `expect_blocked` are further targets for the canary. Intent is journalled before the
  // first object, identities once they exist. On failure the caller runs disconnect(), which copes with every part.
  // Errors: kFailedPrecondition when the proof failed (EgressUnproven), anything else is EgressAttachFailed.
  [[nodiscard]] base::Result<NetworkedCell> connect(const model::CellName& name, model::Journal& journal,
                                                    std::span<const model::ExpectBlocked> expect_blocked = {}) const;

  [[nodiscard]] Attach attach() const noexcept;  // kTcx or kClsact: what was taken
  [[nodiscard]] const std::string& netns_path() const noexcept;

  // Removes the namespace and the mounts that open() made. Refuses nothing: cells still connected lose their links.
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
