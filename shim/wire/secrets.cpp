#include "shim/wire/secrets.hpp"

#include <algorithm>

#include "shim/wire/codec.hpp"

namespace cellrund::wire {
namespace {

using base::Errc;
using base::Error;

constexpr std::size_t kMaxName = 63;
constexpr std::uint64_t kMaxTtl = 366ULL * 24 * 3600;

Error malformed(const char* what) { return Error(Errc::kInvalidArgument, std::string("decode ") + what + ": malformed"); }

void put_number(base::WipedBytes& out, std::uint64_t value, unsigned width) {
  for (unsigned i = 0; i < width; ++i) {
    out.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
  }
}

void put_bytes(base::WipedBytes& out, base::BytesView bytes) {
  put_number(out, bytes.size(), 4);
  out.insert(out.end(), bytes.begin(), bytes.end());
}

}  // namespace

bool is_secret_name(std::string_view name) noexcept {
  return !name.empty() && name.size() <= kMaxName && name.front() != '.' && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
  });
}

base::WipedBytes encode_secrets(const std::vector<NamedSecret>& secrets) {
  base::WipedBytes out;
  put_number(out, secrets.size(), 4);
  for (const NamedSecret& secret : secrets) {
    put_bytes(out, base::as_bytes(secret.name));
    put_number(out, static_cast<std::uint64_t>(secret.ttl.count()), 8);
    put_bytes(out, secret.value.bytes());
  }
  return out;
}

base::Result<std::vector<NamedSecret>> decode_secrets(base::BytesView bytes) {
  Reader reader(bytes);
  std::vector<NamedSecret> out;
  const std::size_t count = reader.count(kMaxSecrets);
  for (std::size_t i = 0; i < count && !reader.failed(); ++i) {
    NamedSecret secret;
    secret.name = reader.text(kMaxName);
    const std::uint64_t ttl = reader.u64();
    const std::size_t size = reader.u32();
    if (reader.failed() || !is_secret_name(secret.name) || ttl > kMaxTtl || size > kMaxSecretBytes ||
        std::any_of(out.begin(), out.end(), [&](const NamedSecret& other) { return other.name == secret.name; })) {
      return malformed("secrets");
    }
    secret.ttl = std::chrono::seconds(ttl);
    const base::BytesView value = reader.raw(size);
    if (reader.failed()) {
      return malformed("secrets");
    }
    secret.value = CR_TRY(base::Secret::create(size));
    std::copy(value.begin(), value.end(), secret.value.bytes().begin());
    out.push_back(std::move(secret));
  }
  if (!reader.complete()) {
    return malformed("secrets");
  }
  return out;
}

base::WipedBytes encode(const SecretPiece& piece) {
  base::WipedBytes out;
  put_bytes(out, base::as_bytes(piece.name));
  out.push_back(piece.last ? 1 : 0);
  out.insert(out.end(), piece.bytes.begin(), piece.bytes.end());
  return out;
}

base::Result<SecretPiece> decode_secret_piece(base::BytesView payload) {
  Reader reader(payload);
  SecretPiece out;
  out.name = reader.text(kMaxName);
  const std::uint8_t last = reader.u8();
  out.bytes = reader.raw(reader.left());
  if (!reader.complete() || last > 1 || !is_secret_name(out.name) || out.bytes.size() > kMaxSecretPiece) {
    return malformed("SECRET");
  }
  out.last = last == 1;
  return out;
}

base::Bytes encode_revoke(std::string_view name) {
  Writer writer;
  writer.text(name);
  return std::move(writer).take();
}

base::Result<std::string> decode_revoke(base::BytesView payload) {
  Reader reader(payload);
  std::string name = reader.text(kMaxName);
  if (!reader.complete() || !is_secret_name(name)) {
    return malformed("REVOKE");
  }
  return name;
}

}  // namespace cellrund::wire
