// IPv4 addresses and prefixes as values, and the strict text form in which a policy names them. Pure.
#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace cellrund::model {

// Host byte order throughout.
[[nodiscard]] std::string format_ipv4(std::uint32_t address);
// Strict dotted quad: four decimal numbers without leading zeros. kInvalidArgument otherwise.
base::Result<std::uint32_t> parse_ipv4(std::string_view text);

// The first `length` bits of an address (RFC 4632); the bits behind them are zero.
struct Ipv4Prefix {
  std::uint32_t address = 0;
  std::uint8_t length = 0;  // 0 … 32

  [[nodiscard]] constexpr std::uint32_t mask() const noexcept {
    return length == 0 ? 0 : ~std::uint32_t{0} << (32U - length);
  }
  [[nodiscard]] constexpr bool contains(std::uint32_t other) const noexcept { return (other & mask()) == address; }
  [[nodiscard]] constexpr bool contains(const Ipv4Prefix& other) const noexcept {
    return other.length >= length && contains(other.address);
  }
  // Two prefixes are either disjoint or one holds the other.
  [[nodiscard]] constexpr bool overlaps(const Ipv4Prefix& other) const noexcept {
    return contains(other) || other.contains(*this);
  }
  [[nodiscard]] std::string text() const;  // "203.0.113.0/24"

  friend auto operator<=>(const Ipv4Prefix&, const Ipv4Prefix&) = default;
};

// "a.b.c.d/n". kInvalidArgument otherwise; the message is a predicate that fits behind a field's name ("has host bits
// set, write 10.0.0.0/8").
base::Result<Ipv4Prefix> parse_ipv4_prefix(std::string_view text);

}  // namespace cellrund::model
