// Where the network of a node and of its cells has its names: files under the run folder and kernel object names. One
// place, so that connect() and disconnect() cannot disagree.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "model/node.hpp"

namespace cellrund::netpolicy {

inline constexpr const char* kCellInterface = "eth0";
inline constexpr const char* kUplink = "up0";  // in the router namespace: the only way out of it
inline constexpr const char* kHostLinkPrefix = "cu";
// Its other end, in the host's namespace.
inline std::string uplink_host_link(const model::NodeTag& node) {
  return kHostLinkPrefix + node.value;
}
inline std::string host_table(const model::NodeTag& node) {
  return "cellrun_" + node.value;
}

inline std::string netns_dir(const std::string& run_dir) {
  return run_dir + "/netns";
}
inline std::string bpf_dir(const std::string& run_dir) {
  return run_dir + "/bpf";
}
inline std::string router_netns(const std::string& run_dir, const model::NodeTag& node) {
  return netns_dir(run_dir) + "/" + model::router_name(node);
}
inline std::string cell_netns(const std::string& run_dir, const model::CellName& cell) {
  return netns_dir(run_dir) + "/" + cell.marker();
}
inline std::string pin_dir(const std::string& run_dir, const model::CellName& cell) {
  return bpf_dir(run_dir) + "/" + cell.marker();
}
// Holds the mark that nftables lets pass, for the life of the namespace.
inline std::string mark_file(const std::string& run_dir, const model::NodeTag& node) {
  return run_dir + "/" + model::router_name(node) + ".mark";
}

// What the node has changed in the host's namespace for its uplink.
inline std::string uplink_file(const std::string& run_dir, const model::NodeTag& node) {
  return run_dir + "/" + model::router_name(node) + ".uplink";
}

// Pins inside pin_dir(). bpffs allows no dots in names.
inline constexpr const char* kPinProgramOut = "program_out";
inline constexpr const char* kPinProgramIn = "program_in";
inline constexpr const char* kPinLinkOut = "link_out";  // absent with clsact
inline constexpr const char* kPinLinkIn = "link_in";
// Kernel names of the cell's BPF objects: model::CellName::bpf_prefix() and two characters.
inline std::string program_out_name(const model::CellName& cell) {
  return cell.bpf_prefix() + "_o";
}
inline std::string program_in_name(const model::CellName& cell) {
  return cell.bpf_prefix() + "_i";
}

// The maps of a cell: who writes what stands in ebpf/egress_abi.h.
enum class MapRole : std::uint8_t {
  kConfig, kControl, kCounters, kDecisions, kDeny, kAllow, kFlows, kUsage, kLease, kSamples, kNamed,
  kNode,  // the node's, shared by all cells
};
struct MapName {
  const char* suffix;  // of the kernel name
  const char* pin;
};
inline constexpr std::array<MapName, 11> kCellMaps{{
    {"_f", "map_config"}, {"_s", "map_control"}, {"_c", "map_counters"}, {"_d", "map_decisions"}, {"_n", "map_deny"},
    {"_a", "map_allow"}, {"_w", "map_flows"}, {"_u", "map_usage"}, {"_l", "map_lease"}, {"_r", "map_samples"},
    {"_h", "map_named"},
}};
inline std::string map_name(const model::CellName& cell, std::size_t index) {
  return cell.bpf_prefix() + kCellMaps.at(index).suffix;
}
inline std::string map_pin(const std::string& pins, MapRole role) {
  return pins + "/" + kCellMaps.at(static_cast<std::size_t>(role)).pin;
}
// The node's map outlives the daemon, and with it an engaged kill switch.
inline std::string node_map_pin(const std::string& run_dir, const model::NodeTag& node) {
  return bpf_dir(run_dir) + "/node_" + node.value;
}

}  // namespace cellrund::netpolicy
