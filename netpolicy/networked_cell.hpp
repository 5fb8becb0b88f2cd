// A cell's network as it stands before anything runs in it: namespace, veth pair, filter attached, read back and proven
// by a canary. Only Router::connect() can make one, so whatever takes a NetworkedCell cannot run without a filter.
//
// The object owns one descriptor of the cell's network namespace and nothing else in the kernel: the filter is held by
// its pins and outlives this process. A policy that names hosts has its resolver here, which goes with the object.
// While it lives the router's warden renews the cell's lease and watches the filter;
// it must not outlive the router. Destroy it before the residue scan, since an open descriptor keeps the namespace
// alive. Members are const and thread-safe.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "model/evidence.hpp"
#include "model/node.hpp"
#include "netpolicy/address.hpp"
#include "netpolicy/canary.hpp"
#include "netpolicy/warden.hpp"

namespace cellrund::netpolicy {

namespace resolver {
class NameService;
}

// What the guest (or the process in the cell) is to configure on eth0.
struct CellInterface {
  Mac mac = kCellMac;
  std::string address;  // dotted quad; prefix length kPrefix
  std::string gateway;  // dotted quad
  Mac gateway_mac = kGatewayMac;
  std::string nameserver;  // dotted quad; empty: there is none
  std::uint32_t mtu = kMtu;
};

class NetworkedCell {
 public:
  [[nodiscard]] const model::CellName& name() const noexcept { return name_; }
  [[nodiscard]] int netns_fd() const noexcept { return netns_.get(); }
  [[nodiscard]] const std::string& netns_path() const noexcept { return netns_path_; }  // bind mount
  [[nodiscard]] const CellInterface& interface() const noexcept { return interface_; }
  // As proven by connect(): attachment, read-back and canary, with the account at that moment.
  [[nodiscard]] const model::EgressFacts& facts() const noexcept { return facts_; }

  // facts() with the account of now.
  [[nodiscard]] base::Result<model::EgressFacts> read_facts() const;
  // The same for the last time, when nothing runs in the cell any more: before disconnect(), which removes the maps. Where
  // somebody outside goes on sending, the link is taken down, so that the account can be read while nothing moves.
  [[nodiscard]] base::Result<model::EgressFacts> final_facts() const;
  // Reads the attachment back again: our two programs and nothing else at both hooks of the same interface, the filter
  // enforcing the policy that was proven, the router's firewall untouched. kFailedPrecondition or kNotFound names what differs (the job's reason is
  // then EgressUnproven).
  [[nodiscard]] base::Status verify_attached() const;

  NetworkedCell(NetworkedCell&&) noexcept;
  NetworkedCell& operator=(NetworkedCell&&) noexcept;
  NetworkedCell(const NetworkedCell&) = delete;
  NetworkedCell& operator=(const NetworkedCell&) = delete;
  ~NetworkedCell();

 private:
  friend class Router;
  NetworkedCell(std::string run_dir, model::CellName name, base::UniqueFd netns, std::string netns_path,
                CellInterface interface, model::EgressFacts facts, Probes probes, Proof proof, Warden::Watch watch,
                std::unique_ptr<resolver::NameService> names);

  std::string run_dir_;
  model::CellName name_;
  base::UniqueFd netns_;
  std::string netns_path_;
  CellInterface interface_;
  model::EgressFacts facts_;
  Probes probes_;
  Proof proof_;
  Warden::Watch watch_;
  std::unique_ptr<resolver::NameService> names_;  // of a policy that names hosts
};

// The account of a cell from its pins alone, for a daemon that was restarted and no longer has the object: what was
// attached and what was counted; canary and read-back time stay empty. kNotFound when the cell has no filter.
base::Result<model::EgressFacts> read_facts(const model::CellName& name, const std::string& run_dir);

// The way back, from names alone, so that it works after a partial connect and after a crash alike. Switches the filter
// to KILLED, removes the link, the namespace and the pins; runs to its end and returns what failed (empty: nothing of
// the cell's network is left that this function knows of). Idempotent. Deleting the link blocks
// for several RCU grace periods: some 50 ms with tcx and 30 with clsact, and a second or more on a machine whose CPUs
// are all taken.
[[nodiscard]] std::vector<std::string> disconnect(const model::CellName& name, const std::string& run_dir);

// Switches the filter to KILLED and nothing else: every packet from and to the cell is dropped from now on, whatever
// the policy allowed. A cell without a filter is success: it has no network either.
base::Status kill_network(const model::CellName& name, const std::string& run_dir);

}  // namespace cellrund::netpolicy
