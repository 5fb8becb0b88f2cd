// Private to admit/: the patterns of trust files. '*' stands for any run without '/', "**" for any run at all; a lone
// "*" is the same as "**". Everything else stands for itself; there are no escapes and no classes.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace cellrund::admit {

// Bounded by |pattern| × |text|; both are at most a few hundred bytes.
[[nodiscard]] bool glob_match(std::string_view pattern, std::string_view text);
[[nodiscard]] bool any_match(const std::vector<std::string>& patterns, std::string_view text);

}  // namespace cellrund::admit
