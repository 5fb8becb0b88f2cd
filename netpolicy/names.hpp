// Where the network of a node and of its cells has its names: files under the run folder and kernel object names. One
// place, so that connect() and disconnect() cannot disagree.
#pragma once

#include <array>
#include <string>

#include "model/node.hpp"

namespace cellrund::netpolicy {

inline constexpr const char* kCellInterface = "eth0";

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

// Pins inside pin_dir(). bpffs allows no dots in names.
inline constexpr const char* kPinProgramOut = "program_out";
inline constexpr const char* kPinProgramIn = "program_in";
inline constexpr const char* kPinLinkOut = "link_out";  // absent with clsact
inline constexpr const char* kPinLinkIn = "link_in";
inline constexpr const char* kPinConfig = "map_config";
inline constexpr const char* kPinControl = "map_control";
inline constexpr const char* kPinCounters = "map_counters";
inline constexpr const char* kPinDecisions = "map_decisions";

// Kernel names of the cell's BPF objects: model::CellName::bpf_prefix() and two characters.
inline std::string program_out_name(const model::CellName& cell) {
  return cell.bpf_prefix() + "_o";
}
inline std::string program_in_name(const model::CellName& cell) {
  return cell.bpf_prefix() + "_i";
}
inline std::string config_name(const model::CellName& cell) {
  return cell.bpf_prefix() + "_f";
}
inline std::string control_name(const model::CellName& cell) {
  return cell.bpf_prefix() + "_s";
}
inline std::string counters_name(const model::CellName& cell) {
  return cell.bpf_prefix() + "_c";
}
inline std::string decisions_name(const model::CellName& cell) {
  return cell.bpf_prefix() + "_d";
}

}  // namespace cellrund::netpolicy
