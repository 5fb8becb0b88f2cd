#include "crypto/random.hpp"

#include <openssl/rand.h>

#include <array>

#include "base/hex.hpp"

namespace cellrund::crypto {

using base::Errc;
using base::Error;

base::Status random_bytes(std::span<std::uint8_t> out) {
  if (RAND_bytes(out.data(), static_cast<int>(out.size())) != 1) {
    return Error(Errc::kUnavailable, "random bytes: libcrypto has no entropy");
  }
  return base::ok();
}

base::Result<std::string> uuid_v7(base::WallTime now) {
  std::array<std::uint8_t, 16> bytes{};
  CR_CHECK(random_bytes(bytes));
  auto millis = static_cast<std::uint64_t>(now.seconds) * 1000 + static_cast<std::uint64_t>(now.nanos) / 1000000;
  for (std::size_t i = 6; i-- > 0; millis >>= 8U) {
    bytes[i] = static_cast<std::uint8_t>(millis & 0xffU);
  }
  bytes[6] = static_cast<std::uint8_t>((bytes[6] & 0x0fU) | 0x70U);  // version 7
  bytes[8] = static_cast<std::uint8_t>((bytes[8] & 0x3fU) | 0x80U);  // variant of RFC 9562
  std::string text = base::to_hex(bytes);
  for (const std::size_t at : {20U, 16U, 12U, 8U}) {
    text.insert(at, 1, '-');
  }
  return text;
}

bool is_uuid_v7(std::string_view text) noexcept {
  if (text.size() != 36) {
    return false;
  }
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    const char c = text[i];
    if (dash ? c != '-' : !((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) {
      return false;
    }
  }
  constexpr std::string_view kVariant = "89ab";
  return text[14] == '7' && kVariant.find(text[19]) != std::string_view::npos;
}

}  // namespace cellrund::crypto
