// The filter in the kernel. FilterProgram is the code, verified once per node; LoadedFilter is one cell's instance of
// it: two programs and ten maps of its own, named after the cell, held by descriptors until they are pinned.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "base/fd.hpp"
#include "base/file.hpp"
#include "base/result.hpp"
#include "ebpf/egress_abi.h"
#include "model/node.hpp"
#include "netpolicy/names.hpp"
#include "netpolicy/policy.hpp"

namespace cellrund::netpolicy {

class LoadedFilter {
 public:
  struct Program {
    base::UniqueFd fd;
    std::uint32_t id = 0;
    std::string tag;  // 16 hex digits: the kernel's hash of the instructions
  };
  struct Map {
    base::UniqueFd fd;
    std::uint32_t id = 0;
  };

  [[nodiscard]] const Program& out() const noexcept { return out_; }
  [[nodiscard]] const Program& in() const noexcept { return in_; }
  [[nodiscard]] const Map& map(MapRole role) const noexcept { return maps_[static_cast<std::size_t>(role)]; }
  [[nodiscard]] int counters() const noexcept { return map(MapRole::kCounters).fd.get(); }
  [[nodiscard]] int decisions() const noexcept { return map(MapRole::kDecisions).fd.get(); }

  // Before arm() every packet is dropped as CR_NOT_ENFORCING.
  [[nodiscard]] base::Status arm() const;
  // Pins every object under `dir` (made here, mode 0700). What is pinned outlives this process.
  [[nodiscard]] base::Status pin(const std::string& dir) const;

 private:
  friend class FilterProgram;
  LoadedFilter() = default;
  Program out_, in_;
  std::array<Map, kCellMaps.size()> maps_;
};

// The filter as an object file: the built-in one.
[[nodiscard]] base::BytesView built_in_filter();

// Immutable after prepare(), so thread-safe.
class FilterProgram {
 public:
  // Relocates the object and has this kernel's verifier accept it. Nothing of that stays in the kernel.
  static base::Result<FilterProgram> prepare(base::BytesView object = built_in_filter());

  // New maps; constants, deny and allow set are written and frozen before the programs are loaded. State is UNSET, and
  // there is no lease. `node_fd` is the node's map.
  [[nodiscard]] base::Result<LoadedFilter> load(const model::CellName& cell, const cr_config& config,
                                                const CompiledPolicy& policy, int node_fd) const;

 private:
  struct Reference {
    std::size_t instruction = 0;
    MapRole role = MapRole::kConfig;
  };
  // Instructions as the kernel takes them (struct bpf_insn), with the places where a cell's map descriptors go.
  struct Code {
    std::vector<std::uint64_t> instructions;
    std::vector<Reference> references;
  };
  struct Extraction;
  static base::Result<LoadedFilter::Program> load_program(const Code& code, const std::string& name,
                                                          const LoadedFilter& maps, int node_fd);
  Code out_, in_;
};

// The constants of a cell in one place.
[[nodiscard]] cr_config make_config(std::uint32_t cell_address, std::uint32_t allow_mark,
                                    const model::EgressQuota& quota) noexcept;

// BPF_OBJ_GET of a pin; kNotFound when it is absent.
base::Result<base::UniqueFd> open_pin(const std::string& path);

// Writes the state of a control map.
base::Status write_state(int control_fd, cr_state state);

}  // namespace cellrund::netpolicy
