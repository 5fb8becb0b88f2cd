// Randomness and identifiers made of it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/clock.hpp"
#include "base/result.hpp"

namespace cellrund::crypto {

// From libcrypto's DRBG, seeded by the kernel.
base::Status random_bytes(std::span<std::uint8_t> out);

// RFC 9562 section 5.7: milliseconds of `now`, then 74 random bits. Lower case, 36 characters.
base::Result<std::string> uuid_v7(base::WallTime now);
[[nodiscard]] bool is_uuid_v7(std::string_view text) noexcept;

}  // namespace cellrund::crypto
