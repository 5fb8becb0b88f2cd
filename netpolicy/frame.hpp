// Ethernet frames with an IPv4 header and TCP or UDP inside, as the canary sends them. Pure.
#pragma once

#include "base/file.hpp"
#include "netpolicy/address.hpp"

namespace cellrund::netpolicy {

struct FrameSpec {
  Mac source_mac{};
  Mac destination_mac{};
  std::uint32_t source = 0;  // host byte order
  std::uint32_t destination = 0;
  std::uint8_t protocol = 17;  // 6: a TCP SYN, 17: an empty UDP datagram, others: no payload
  std::uint16_t source_port = 0;
  std::uint16_t destination_port = 0;
};

// Checksums included (RFC 791, RFC 768, RFC 9293), so that nothing but the filter has a reason to drop it.
[[nodiscard]] base::Bytes build_frame(const FrameSpec& spec);

}  // namespace cellrund::netpolicy
