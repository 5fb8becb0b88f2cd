#include "netpolicy/verdicts.hpp"

#include <array>

namespace cellrund::netpolicy {
namespace {

constexpr std::array<std::string_view, CR_VERDICTS> kNames{
    "not-enforcing", "killed", "kill-switch", "vlan", "truncated", "source-mac", "arp", "ipv6", "ethertype", "group-mac",
    "destination-mac", "malformed", "ip-options", "ttl", "fragment", "source-address", "icmp", "protocol", "broadcast",
    "multicast", "reserved", "this-network", "loopback", "metadata", "link-local", "cell-network", "router", "host",
    "private", "default-deny", "expired", "tcp-state", "lease", "rate", "quota", "flow-table", "inbound-frame",
    "inbound-header", "inbound-icmp", "inbound-protocol", "inbound", "allowed", "established", "reply"};

}  // namespace

std::string_view reason_name(unsigned verdict) noexcept {
  return verdict < kNames.size() ? kNames[verdict] : "";
}

}  // namespace cellrund::netpolicy
