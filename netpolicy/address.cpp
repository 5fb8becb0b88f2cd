#include "netpolicy/address.hpp"

#include <cstdio>

namespace cellrund::netpolicy {

base::Result<CellNetwork> network_of_slot(std::uint32_t slot) {
  if (slot >= kMaxSlots) {
    return base::Error(base::Errc::kInvalidArgument, "cell slot " + std::to_string(slot) + " has no address");
  }
  constexpr std::uint32_t kBase = 0x64400000;  // 100.64.0.0
  return CellNetwork{kBase + 2 * slot, kBase + 2 * slot + 1};
}

std::string format_mac(const Mac& mac) {
  std::array<char, 18> text{};
  (void)std::snprintf(text.data(), text.size(), "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4],
                      mac[5]);
  return text.data();
}

}  // namespace cellrund::netpolicy
