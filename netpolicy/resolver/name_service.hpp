// The daemon's side of one cell's resolver: starts it in its box, decides on every address that it proposes, writes the
// named map before the cell hears of it, and keeps the record of all queries.
//
// One thread per cell with names. It lives in the router namespace, whose sockets it opens, and the box dies with it.
#pragma once

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/fd.hpp"
#include "base/process.hpp"
#include "base/result.hpp"
#include "netpolicy/policy.hpp"
#include "netpolicy/resolver/channel.hpp"
#include "netpolicy/resolver/dns_record.hpp"
#include "netpolicy/resolver/name_table.hpp"

namespace cellrund::netpolicy::resolver {

struct NameServiceOptions {
  std::string program;                   // absolute path of cellrun-resolver
  std::vector<std::uint32_t> upstreams;  // not empty
  int router_netns = -1;                 // borrowed while start() runs
  std::uint32_t gateway = 0;             // an address of the router namespace: where the cell asks
  base::UniqueFd named_map;
  std::vector<NamedService> blocked;  // no name opens these
};

class NameService {
 public:
  // Returns when the resolver serves, confined. `policy` names hosts.
  static base::Result<std::unique_ptr<NameService>> start(NameServiceOptions options, const CompiledPolicy& policy);
  NameService(const NameService&) = delete;
  NameService& operator=(const NameService&) = delete;
  NameService(NameService&&) = delete;
  NameService& operator=(NameService&&) = delete;
  ~NameService();  // the resolver is gone when it returns

  [[nodiscard]] const base::ProcessId& process() const noexcept { return box_.id(); }
  // Of all queries so far. May outlive the service.
  [[nodiscard]] const std::shared_ptr<DnsRecord>& record() const noexcept { return record_; }

 private:
  NameService(NameServiceOptions options, const CompiledPolicy& policy);
  base::Status bring_up();  // on the thread, as is the rest
  base::Status wait_ready();
  void run();
  bool hear();  // false: it no longer serves
  void decide(const Proposal& proposal);

  NameServiceOptions options_;
  std::vector<model::HostName> names_;
  std::optional<std::uint64_t> max_queries_;
  NameTable table_;
  base::UniqueFd control_;
  base::UniqueFd stop_;
  base::PidFd box_;
  std::shared_ptr<DnsRecord> record_;
  std::jthread thread_;
};

}  // namespace cellrund::netpolicy::resolver
