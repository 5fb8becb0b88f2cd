#include "model/ipv4.hpp"

#include <charconv>

namespace cellrund::model {
namespace {

base::Error invalid(std::string why) { return {base::Errc::kInvalidArgument, std::move(why)}; }

}  // namespace

std::string format_ipv4(std::uint32_t address) {
  std::string out;
  for (int shift = 24; shift >= 0; shift -= 8) {
    out += std::to_string((address >> static_cast<unsigned>(shift)) & 0xffU);
    if (shift != 0) {
      out += '.';
    }
  }
  return out;
}

base::Result<std::uint32_t> parse_ipv4(std::string_view text) {
  std::uint32_t out = 0;
  const char* at = text.data();
  const char* const end = at + text.size();
  for (int i = 0; i < 4; ++i) {
    if (i != 0 && (at == end || *at++ != '.')) {
      return invalid("not an IPv4 address");
    }
    std::uint8_t octet = 0;
    const auto [next, error] = std::from_chars(at, end, octet);
    if (error != std::errc() || (next - at > 1 && *at == '0')) {
      return invalid("not an IPv4 address");
    }
    out = out << 8U | octet;
    at = next;
  }
  if (at != end) {
    return invalid("not an IPv4 address");
  }
  return out;
}

std::string Ipv4Prefix::text() const { return format_ipv4(address) + "/" + std::to_string(length); }

base::Result<Ipv4Prefix> parse_ipv4_prefix(std::string_view text) {
  constexpr unsigned kLongest = 32;
  const std::size_t slash = text.find('/');
  if (text.substr(0, slash).find(':') != std::string_view::npos) {
    return invalid("is an IPv6 range, and cells have IPv4 only (also for IPv4-mapped addresses: write a.b.c.d/n)");
  }
  const auto address = parse_ipv4(text.substr(0, slash));
  if (!address.ok()) {
    return invalid("is no IPv4 range, write a.b.c.d/n");
  }
  if (slash == std::string_view::npos) {
    return invalid("has no prefix length, write " + format_ipv4(*address) + "/32 for one address");
  }
  const std::string_view digits = text.substr(slash + 1);
  unsigned length = kLongest + 1;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), length);
  if (error != std::errc() || end != digits.data() + digits.size() || (digits.size() > 1 && digits[0] == '0') ||
      length > kLongest) {
    return invalid("has a prefix length that is not between 0 and 32");
  }
  Ipv4Prefix prefix{0, static_cast<std::uint8_t>(length)};
  prefix.address = *address & prefix.mask();
  if (prefix.address != *address) {
    return invalid("has host bits set, write " + prefix.text());
  }
  return prefix;
}

}  // namespace cellrund::model
