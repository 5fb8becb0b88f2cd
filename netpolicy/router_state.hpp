// What an open Router knows; shared by router.cpp (open, destroy) and connect.cpp.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "base/fd.hpp"
#include "base/file.hpp"
#include "base/guarded.hpp"
#include "netpolicy/closer.hpp"
#include "netpolicy/filter.hpp"
#include "netpolicy/resolver/dns_record.hpp"
#include "netpolicy/router.hpp"
#include "netpolicy/spare.hpp"
#include "netpolicy/warden.hpp"

namespace cellrund::netpolicy {

struct Router::State {
  RouterOptions options;
  std::string netns_path;
  base::UniqueFd netns;
  base::FileId netns_id;
  Attach attach = Attach::kTcx;
  std::uint32_t allow_mark = 0;
  std::uint32_t firewall = 0;  // generation after it was written
  FilterProgram program;
  base::UniqueFd drop_all;
  base::UniqueFd node_map;  // struct cr_node
  base::Guarded<std::map<std::string, std::weak_ptr<resolver::DnsRecord>>> dns_records;  // by uid
  Closer closer;
  std::unique_ptr<Warden> warden;     // borrows from the members above, as does the next
  std::unique_ptr<SparePool> spares;
};

}  // namespace cellrund::netpolicy
