// The node's nftables table in the host's namespace: where what comes out of the uplink may go, under which address, and
// what may come back. Text alone; nft.hpp runs it.
#pragma once

#include <cstdint>
#include <string>

#include "model/node.hpp"

namespace cellrund::netpolicy {

struct HostTable {
  model::NodeTag node;
  std::string interface;      // of the host: the one way on
  std::uint32_t address = 0;  // of the uplink's end in the router namespace; everything from there has it as its source
  // The interface forwards only because of us: then nothing else may be forwarded from it that it would not have been.
  bool guard = false;
};

// Replaces the table in one transaction.
[[nodiscard]] std::string host_table_ruleset(const HostTable& table);
// Also where there is none.
[[nodiscard]] std::string host_table_removal(const model::NodeTag& node);

}  // namespace cellrund::netpolicy
