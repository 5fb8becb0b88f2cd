// Addresses of a cell: pure arithmetic on its slot. Each cell is a layer-2 segment of its own (one veth pair), so the
// two MAC addresses are the same in every cell; that lets one virtual machine template serve every job.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "base/result.hpp"
#include "model/ipv4.hpp"

namespace cellrund::netpolicy {

using Mac = std::array<std::uint8_t, 6>;

// Locally administered and unicast (IEEE 802, second-least and least significant bit of the first octet).
inline constexpr Mac kGatewayMac{0x02, 0x43, 0x52, 0x00, 0x00, 0x01};
inline constexpr Mac kCellMac{0x02, 0x43, 0x52, 0x00, 0x00, 0x02};
inline constexpr std::uint32_t kMtu = 1500;
inline constexpr int kPrefix = 31;  // RFC 3021: two hosts, no network or broadcast address

// One /31 out of 100.64.0.0/10 (RFC 6598) per slot, IPv4 in host byte order.
struct CellNetwork {
  std::uint32_t gateway = 0;  // the even address: the host side of the veth pair, in the router namespace
  std::uint32_t cell = 0;     // the odd address
};

// The last 65,536 addresses of the range are no cell's: nodes take a /31 each out of 100.127.0.0/16 for their uplinks.
inline constexpr std::uint32_t kUplinkAddresses = 0x647f0000;
inline constexpr std::uint32_t kUplinkNetworks = 1U << 15U;
inline constexpr std::uint32_t kMaxSlots = (1U << 21U) - kUplinkNetworks;
// kInvalidArgument from kMaxSlots on.
base::Result<CellNetwork> network_of_slot(std::uint32_t slot);

using model::format_ipv4;
using model::parse_ipv4;
[[nodiscard]] std::string format_mac(const Mac& mac);

}  // namespace cellrund::netpolicy
