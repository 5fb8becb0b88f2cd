// The names of verdicts, as evidence and screens show them. Pure.
#pragma once

#include <string_view>

#include "ebpf/egress_abi.h"

namespace cellrund::netpolicy {

// Of a cr_reason or cr_pass, e.g. "default-deny". Empty for a number that is neither.
[[nodiscard]] std::string_view reason_name(unsigned verdict) noexcept;

}  // namespace cellrund::netpolicy
