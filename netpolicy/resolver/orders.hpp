// What the daemon orders of the resolver of one cell: one JSON document on descriptor 0. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "model/host_name.hpp"

namespace cellrund::netpolicy::resolver {

inline constexpr int kControlFd = 3;   // SOCK_SEQPACKET, netpolicy/resolver/channel.hpp
inline constexpr int kDatagramFd = 4;  // UDP, bound to the cell's gateway, port 53
inline constexpr int kListenerFd = 5;  // TCP, the same
inline constexpr std::size_t kMaxUpstreams = 8;

struct Orders {
  std::vector<model::HostName> names;
  std::vector<std::uint32_t> upstreams;      // host byte order; port 53; asked in turn
  std::optional<std::uint64_t> max_queries;  // of the whole job
};

[[nodiscard]] std::string write_orders(const Orders& orders);
base::Result<Orders> parse_orders(std::string_view text);

}  // namespace cellrund::netpolicy::resolver
