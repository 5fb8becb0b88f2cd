#include "netpolicy/address.hpp"

#include <charconv>
#include <cstdio>

namespace cellrund::netpolicy {

base::Result<CellNetwork> network_of_slot(std::uint32_t slot) {
  if (slot >= kMaxSlots) {
    return base::Error(base::Errc::kInvalidArgument, "cell slot " + std::to_string(slot) + " has no address");
  }
  constexpr std::uint32_t kBase = 0x64400000;  // 100.64.0.0
  return CellNetwork{kBase + 2 * slot, kBase + 2 * slot + 1};
}

std::string format_ipv4(std::uint32_t host_order) {
  std::string out;
  for (int shift = 24; shift >= 0; shift -= 8) {
    out += std::to_string((host_order >> static_cast<unsigned>(shift)) & 0xffU);
    if (shift != 0) {
      out += '.';
    }
  }
  return out;
}

base::Result<std::uint32_t> parse_ipv4(std::string_view text) {
  const auto malformed = [] { return base::Error(base::Errc::kInvalidArgument, "not an IPv4 address"); };
  std::uint32_t out = 0;
  const char* at = text.data();
  const char* const end = at + text.size();
  for (int i = 0; i < 4; ++i) {
    if (i != 0 && (at == end || *at++ != '.')) {
      return malformed();
    }
    std::uint8_t octet = 0;
    const auto [next, error] = std::from_chars(at, end, octet);
    if (error != std::errc() || (next - at > 1 && *at == '0')) {
      return malformed();
    }
    out = out << 8U | octet;
    at = next;
  }
  if (at != end) {
    return malformed();
  }
  return out;
}

std::string format_mac(const Mac& mac) {
  std::array<char, 18> text{};
  (void)std::snprintf(text.data(), text.size(), "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4],
                      mac[5]);
  return text.data();
}

}  // namespace cellrund::netpolicy
