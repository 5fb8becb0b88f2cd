// The address ranges that a policy treats apart from the public Internet: those that no cell ever reaches, whatever a
// rule and a grant say, and private ones, which take a grant of the signer's key.
#pragma once

#include <array>
#include <string_view>

#include "model/ipv4.hpp"

namespace cellrund::model {

enum class RangeKind {
  kThisNetwork, kLoopback, kMetadata, kLinkLocal, kCellNetwork, kMulticast, kReserved, kBroadcast, kPrivate,
};

struct AddressRange {
  Ipv4Prefix prefix;
  RangeKind kind;
  std::string_view name;
};

// An address belongs to its longest range. Sources: RFC 6890 and the IANA special-purpose registry; metadata services of
// AWS, GCP, Azure and others (169.254.169.254), of ECS tasks (169.254.170.2) and of Alibaba Cloud (100.100.100.200).
inline constexpr std::array<AddressRange, 10> kNeverReached{{
    {{0x00000000, 8}, RangeKind::kThisNetwork, "\"this network\""},
    {{0x64400000, 10}, RangeKind::kCellNetwork, "the network of the cells"},
    {{0x646464c8, 32}, RangeKind::kMetadata, "a metadata service"},
    {{0x7f000000, 8}, RangeKind::kLoopback, "loopback"},
    {{0xa9fe0000, 16}, RangeKind::kLinkLocal, "link-local"},
    {{0xa9fea9fe, 32}, RangeKind::kMetadata, "a metadata service"},
    {{0xa9feaa02, 32}, RangeKind::kMetadata, "a metadata service"},
    {{0xe0000000, 4}, RangeKind::kMulticast, "multicast"},
    {{0xf0000000, 4}, RangeKind::kReserved, "reserved"},
    {{0xffffffff, 32}, RangeKind::kBroadcast, "the broadcast address"},
}};

// RFC 1918; RFC 6890's protocol assignments and RFC 2544's benchmarking range are as little public.
inline constexpr std::array<AddressRange, 5> kPrivateRanges{{
    {{0x0a000000, 8}, RangeKind::kPrivate, "private"},
    {{0xac100000, 12}, RangeKind::kPrivate, "private"},
    {{0xc0000000, 24}, RangeKind::kPrivate, "private"},
    {{0xc0a80000, 16}, RangeKind::kPrivate, "private"},
    {{0xc6120000, 15}, RangeKind::kPrivate, "private"},
}};

}  // namespace cellrund::model
