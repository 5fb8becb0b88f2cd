// Lower-case hexadecimal and RFC 4648 base64.
#pragma once

#include <string>
#include <string_view>

#include "base/file.hpp"
#include "base/result.hpp"

namespace cellrund::base {

[[nodiscard]] std::string to_hex(BytesView bytes);
// Lower case only, even length.
Result<Bytes> from_hex(std::string_view text);

// Standard alphabet with padding.
[[nodiscard]] std::string to_base64(BytesView bytes);
// Standard or URL-safe alphabet (never mixed), padding required for the standard one and optional for the other,
// no white space, and the unused low bits of the last character must be zero: one text per byte string.
Result<Bytes> from_base64(std::string_view text);

}  // namespace cellrund::base
