// What every cell thread of a node shares. Made once by the daemon's composition root; outlives every cell.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "admit/capacity.hpp"
#include "cell/job_table.hpp"
#include "cell/lane.hpp"
#include "cell/secret_store.hpp"
#include "cell/watchdog.hpp"
#include "crypto/keys.hpp"
#include "host/cgroup.hpp"
#include "image/content_store.hpp"
#include "image/input_store.hpp"
#include "image/preparer.hpp"
#include "ledger/ledger.hpp"
#include "model/evidence.hpp"
#include "netpolicy/router.hpp"
#include "residue/scope.hpp"

namespace cellrund::containerd {
class Client;
}

namespace cellrund::cell {

struct NodePaths {
  std::string state;  // /var/lib/cellrun
  std::string run;    // /run/cellrun
  std::string collector;  // absolute path of cellrun-collect
  [[nodiscard]] std::string cell_folder(const std::string& uid) const { return run + "/cells/" + uid; }
};

struct Services {
  NodePaths paths;
  model::NodeTag tag;
  model::NodeFacts facts;
  std::uint32_t vmm_uid_base = 0;  // a cell's VMM runs as vmm_uid_base + slot
  residue::Paths scan_paths;
  std::vector<residue::UidRange> scan_uids;  // whose names the scan believes, beside root's

  ledger::Ledger& ledger;
  JobTable& table;
  admit::CapacityPool& capacity;
  const SecretStore& secrets;
  Watchdog& watchdog;
  image::Preparer& images;
  image::ContentStore& content;
  image::InputStore& inputs;
  const netpolicy::Router& router;
  const host::CgroupTree& cgroups;
  containerd::Client* containerd;  // never null while a lane or the image store needs it
  const crypto::PrivateKey& node_key;
  std::map<model::Lane, std::unique_ptr<Lane>> lanes;
};

}  // namespace cellrund::cell
