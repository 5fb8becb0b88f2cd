// What the filter does with a frame, in plain C++: the reference that the tests hold the kernel program to, and what
// the canary expects. Pure.
#pragma once

#include <string_view>

#include "base/file.hpp"
#include "ebpf/egress_abi.h"

namespace cellrund::netpolicy {

struct Classified {
  cr_reason reason = CR_NOT_ENFORCING;
  cr_decision_key key{};  // as it would be recorded
};

// A frame that the cell sends, Ethernet header first. `vlan_in_metadata`: the kernel has taken a tag off already.
[[nodiscard]] Classified classify_out(base::BytesView frame, const cr_config& config, cr_state state,
                                      bool vlan_in_metadata = false) noexcept;
// A frame on its way to the cell.
[[nodiscard]] Classified classify_in(base::BytesView frame, cr_state state) noexcept;

// The name in evidence and on screens, e.g. "default-deny". Empty for a number that is no reason.
[[nodiscard]] std::string_view reason_name(unsigned reason) noexcept;

}  // namespace cellrund::netpolicy
