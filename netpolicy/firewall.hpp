// The nftables table of the router namespace: drops what no filter marked, whatever happens to the filters. Written once
// per node; afterwards the kernel's ruleset generation tells whether anybody changed it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "base/result.hpp"

namespace cellrund::netpolicy {

// Both act on the calling (throw-away) thread's namespace.

// Replaces table `inet cellrun` in one transaction: links whose name starts with "cj" are the cells'. What is marked may go
// to the uplink, if there is one; what comes from there meets the filter of the cell it is for.
// `uplink_mtu`: of the uplink that the node itself makes. Cells share its address then, what belongs to no tracked
// connection does not cross it, and a TCP segment is no longer than it takes.
// `dns_upstreams`: with any, the cells' resolvers are reached on port 53, and they reach these servers.
base::Status write_firewall(const std::string& nft, std::uint32_t allow_mark, std::optional<std::uint32_t> uplink_mtu,
                            std::span<const std::uint32_t> dns_upstreams);

// Grows with every change of any table in this namespace (NFT_MSG_GETGEN, linux/netfilter/nf_tables.h).
base::Result<std::uint32_t> firewall_generation();

// kFailedPrecondition when it is another one by now.
base::Status expect_firewall(std::uint32_t generation);

}  // namespace cellrund::netpolicy
