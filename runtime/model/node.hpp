// Names that a node gives to what it makes. Every kernel object carries the node tag and the cell, so that a scan
// needs no memory of what was made (markers), and two nodes on one machine never touch each other's objects.
#pragma once

#include <cstdint>
#include <string>

namespace cellrund::model {

// 8 lower-case hex digits, drawn once per state folder.
struct NodeTag {
  std::string value;
};

// One live cell. `slot` is unique among the live cells of a node (0 … max_cells-1) and is reused only after CLEAN.
struct CellName {
  NodeTag node;
  std::string uid;  // the job's uid, 36 characters
  std::uint32_t slot = 0;

  [[nodiscard]] std::string marker() const;        // "cr-<tag>-<uid>": containerd container and lease id, netns file
  [[nodiscard]] std::string cgroup_path() const;   // "/cellrun/<tag>/<uid>" below each cgroup mount
  [[nodiscard]] std::string host_link() const;     // "cj<tag><slot in base 36, 1-3 characters>" in the router namespace
  [[nodiscard]] std::string bpf_prefix() const;    // "cr<tag>" + slot in base 36: at most 13 of BPF_OBJ_NAME_LEN-1 = 15
};

// "cr-<tag>-router"
[[nodiscard]] std::string router_name(const NodeTag& node);

}  // namespace cellrund::model
