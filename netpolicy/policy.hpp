// The egress policy of a cell as one canonical text, whose digest stands in the evidence. There are no rules yet:
// absent, null and [] all mean "deny everything". Pure.
#pragma once

#include <string>
#include <string_view>

namespace cellrund::netpolicy {

// One line per rule, sorted; none here.
inline constexpr std::string_view kDenyAll = "cellrun-egress-policy v1\ndefault deny\n";

// "sha256:…" of the canonical text.
[[nodiscard]] std::string policy_digest();

}  // namespace cellrund::netpolicy
