// The node's kill switch: one value in one map, which every cell's programs read first.
#include <bpf/bpf.h>
#include <linux/bpf.h>

#include <algorithm>
#include <array>

#include "netpolicy/names.hpp"
#include "netpolicy/router.hpp"
#include "netpolicy/router_state.hpp"

namespace cellrund::netpolicy {
namespace {

using base::Error;

constexpr std::uint32_t kZero = 0;

base::Result<cr_node> read_node(int map_fd) {
  cr_node node{};
  if (::bpf_map_lookup_elem(map_fd, &kZero, &node) != 0) {
    return Error::from_errno("read kill switch");
  }
  return node;
}

base::Result<std::uint32_t> map_id(int fd) {
  bpf_map_info info{};
  std::uint32_t size = sizeof info;
  if (::bpf_obj_get_info_by_fd(fd, &info, &size) != 0) {
    return Error::from_errno("read the node's BPF map");
  }
  return info.id;
}

// Whether the pinned program refers to the map (BPF_OBJ_GET_INFO_BY_FD fills map_ids up to the number given).
base::Result<bool> reads_map(const std::string& pin, std::uint32_t map) {
  const base::UniqueFd fd = CR_TRY(open_pin(pin));
  std::array<std::uint32_t, 32> ids{};
  bpf_prog_info info{};
  info.map_ids = reinterpret_cast<std::uintptr_t>(ids.data());
  info.nr_map_ids = static_cast<std::uint32_t>(ids.size());
  std::uint32_t size = sizeof info;
  if (::bpf_obj_get_info_by_fd(fd.get(), &info, &size) != 0) {
    return Error::from_errno("read " + pin);
  }
  return std::find(ids.begin(), ids.end(), map) != ids.end();
}

}  // namespace

base::Status Router::set_kill_switch(bool engaged) const {
  cr_node node = CR_TRY(read_node(state_->node_map.get()));
  if (engaged && node.kill_switch == 0) {
    ++node.epoch;
  }
  node.kill_switch = engaged ? 1 : 0;
  if (::bpf_map_update_elem(state_->node_map.get(), &kZero, &node, BPF_ANY) != 0) {
    return Error::from_errno("write kill switch");
  }
  return base::ok();
}

base::Result<bool> Router::kill_switch() const { return CR_TRY(read_node(state_->node_map.get())).kill_switch != 0; }

base::Result<bool> Router::kill_switch_cuts(const model::CellName& name) const {
  const std::uint32_t map = CR_TRY(map_id(state_->node_map.get()));
  const std::string pins = pin_dir(state_->options.run_dir, name);
  for (const char* program : {kPinProgramOut, kPinProgramIn}) {
    if (!CR_TRY(reads_map(pins + "/" + program, map))) {
      return false;
    }
  }
  return kill_switch();
}

}  // namespace cellrund::netpolicy
