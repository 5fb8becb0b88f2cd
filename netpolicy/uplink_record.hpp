// What a node has changed on the host for its uplink, as a file that survives the daemon, and as a note on the link
// that the other nodes of the host can read. Both say the same about the interface; the file alone says whose it is.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.hpp"

namespace cellrund::netpolicy {

// An interface as it was before the first node used it. Values of net.ipv4.conf.
struct InterfaceBefore {
  std::string name;
  bool forwarding = false;
  bool all_forwarding = false;

  friend bool operator==(const InterfaceBefore&, const InterfaceBefore&) = default;
};

struct UplinkRecord {
  std::string boot_id;        // in another boot nothing of it exists
  std::uint64_t netns = 0;    // cookie of the host's namespace
  std::uint32_t ifindex = 0;  // of the interface; another one of the same name is as the kernel made it
  std::uint32_t address = 0;  // the host's end; the router's is the next one
  InterfaceBefore before;
};

// nullopt: there is none.
base::Result<std::optional<UplinkRecord>> load_uplink_record(const std::string& path);
// Durable when it returns.
base::Status store_uplink_record(const std::string& path, const UplinkRecord& record);

// The note. nullopt: the text is none.
[[nodiscard]] std::string to_alias(const InterfaceBefore& before);
[[nodiscard]] std::optional<InterfaceBefore> parse_alias(const std::string& alias);

}  // namespace cellrund::netpolicy
