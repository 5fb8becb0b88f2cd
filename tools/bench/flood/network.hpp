// The network that the benchmarks of the data path send through: a router with cells as the product makes them, and a host
// on the router's uplink. It lives in a folder and in namespaces of its own.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <string>
#include <vector>

#include "model/journal.hpp"
#include "netpolicy/router.hpp"
#include "tools/bench/sample.hpp"

namespace cellrund::bench {

inline constexpr std::uint32_t kSink = 0xc6336402;  // 198.51.100.2, the host beyond the router
inline constexpr std::uint16_t kSinkPort = 443;

// Of nothing that outlives one sample.
class NoJournal final : public model::Journal {
 public:
  base::Status intend(const model::Inventory& /*batch*/) override { return base::ok(); }
  base::Status created(const model::InventoryItem& /*item*/) override { return base::ok(); }
};

// The network's folder and names; all of it goes with the object.
class Place {
 public:
  explicit Place(std::string folder);
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;
  Place(Place&&) = delete;
  Place& operator=(Place&&) = delete;
  ~Place();
  [[nodiscard]] base::Result<netpolicy::Router> open() const;
  [[nodiscard]] model::CellName cell(std::uint32_t slot) const;  // 0 or 1
  [[nodiscard]] const std::string& folder() const noexcept { return folder_; }

 private:
  std::string folder_;
  model::NodeTag tag_;
};

// The sink's namespace. The router's default route leads to it, so that it gets whatever is let through.
base::Result<base::UniqueFd> make_sink(const netpolicy::Router& router);
// TCP packets and others that have reached it, since it was made.
base::Result<std::uint64_t> arrived_at(int sink_netns);

// One TCP connection from a cell to the sink.
struct Connection {
  base::UniqueFd from, to;
};
base::Result<Connection> connect_to_sink(int cell_netns, int sink_netns);
// The time that `bytes` take from one end to the other.
base::Status transfer(const Connection& connection, std::uint64_t bytes, Sample& sample);

}  // namespace cellrund::bench
