#include "base/hex.hpp"

namespace cellrund::base {
namespace {

constexpr std::string_view kHexDigits = "0123456789abcdef";
constexpr std::string_view kBase64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

int base64_value(char c, bool& standard, bool& url_safe) noexcept {
  if (c == '-' || c == '_') {
    url_safe = true;
    return c == '-' ? 62 : 63;
  }
  if (c == '+' || c == '/') {
    standard = true;
  }
  const std::size_t at = kBase64.find(c);
  return at == std::string_view::npos ? -1 : static_cast<int>(at);
}

}  // namespace

std::string to_hex(BytesView bytes) {
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const std::uint8_t b : bytes) {
    out += kHexDigits[b >> 4U];
    out += kHexDigits[b & 15U];
  }
  return out;
}

Result<Bytes> from_hex(std::string_view text) {
  if (text.size() % 2 != 0) {
    return Error(Errc::kInvalidArgument, "hexadecimal text has an odd length");
  }
  Bytes out;
  out.reserve(text.size() / 2);
  for (std::size_t i = 0; i < text.size(); i += 2) {
    const std::size_t high = kHexDigits.find(text[i]);
    const std::size_t low = kHexDigits.find(text[i + 1]);
    if (high == std::string_view::npos || low == std::string_view::npos) {
      return Error(Errc::kInvalidArgument, "not lower-case hexadecimal");
    }
    out.push_back(static_cast<std::uint8_t>(high << 4U | low));
  }
  return out;
}

std::string to_base64(BytesView bytes) {
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  std::size_t i = 0;
  for (; i + 2 < bytes.size(); i += 3) {
    const std::uint32_t v = static_cast<std::uint32_t>(bytes[i]) << 16U | static_cast<std::uint32_t>(bytes[i + 1]) << 8U | bytes[i + 2];
    out += kBase64[v >> 18U];
    out += kBase64[v >> 12U & 63U];
    out += kBase64[v >> 6U & 63U];
    out += kBase64[v & 63U];
  }
  if (i + 1 == bytes.size()) {
    const std::uint32_t v = static_cast<std::uint32_t>(bytes[i]) << 16U;
    out += kBase64[v >> 18U];
    out += kBase64[v >> 12U & 63U];
    out += "==";
  } else if (i + 2 == bytes.size()) {
    const std::uint32_t v = static_cast<std::uint32_t>(bytes[i]) << 16U | static_cast<std::uint32_t>(bytes[i + 1]) << 8U;
    out += kBase64[v >> 18U];
    out += kBase64[v >> 12U & 63U];
    out += kBase64[v >> 6U & 63U];
    out += "=";
  }
  return out;
}

Result<Bytes> from_base64(std::string_view text) {
  const auto bad = [](std::string_view why) {
    return Error(Errc::kInvalidArgument, "base64: " + std::string(why));
  };
  std::size_t padding = 0;
  while (padding < 2 && !text.empty() && text.back() == '=') {
    text.remove_suffix(1);
    ++padding;
  }
  bool standard = false;
  bool url_safe = false;
  Bytes out;
  out.reserve(text.size() * 3 / 4);
  std::uint32_t bits = 0;
  unsigned held = 0;
  for (const char c : text) {
    const int value = base64_value(c, standard, url_safe);
    if (value < 0) {
      return bad("a character outside the alphabet");
    }
    bits = (bits << 6U | static_cast<std::uint32_t>(value)) & 0xffffffU;
    held += 6;
    if (held >= 8) {
      held -= 8;
      out.push_back(static_cast<std::uint8_t>(bits >> held));
    }
  }
  if (standard && url_safe) {
    return bad("two alphabets are mixed");
  }
  const std::size_t tail = text.size() % 4;
  if (tail == 1) {
    return bad("truncated");
  }
  const std::size_t wanted = tail == 0 ? 0 : 4 - tail;
  if (padding != wanted && !(url_safe && padding == 0)) {
    return bad("wrong padding");
  }
  if ((bits & ((1U << held) - 1U)) != 0) {
    return bad("non-canonical last character");
  }
  return out;
}

}  // namespace cellrund::base
