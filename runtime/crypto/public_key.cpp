#include <openssl/x509.h>

#include <algorithm>
#include <array>

#include "base/hex.hpp"
#include "crypto/digest.hpp"
#include "crypto/keys.hpp"
#include "crypto/openssl.hpp"

namespace cellrund::crypto {

using base::Bytes;
using base::BytesView;
using base::Errc;
using base::Error;
using base::Result;

namespace {

// DER in front of the key bytes. Comparing it whole admits exactly one encoding: named curve, uncompressed point, no
// parameters where there must be none (RFC 5480 section 2.1.1, RFC 8410 section 4).
constexpr std::array<std::uint8_t, 12> kEd25519Prefix{0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00};
constexpr std::size_t kEd25519Bytes = 32;
constexpr std::array<std::uint8_t, 27> kP256Prefix{0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06,
                                                   0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04};
constexpr std::size_t kP256Bytes = 64;

// The y coordinates (little endian, sign bit cleared) of the points whose order divides 8, and their non-canonical
// twins y+p: under such a key a signature for any message can be made without a private key.
constexpr std::array<std::string_view, 7> kSmallOrder{
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
};

template <std::size_t N>
bool has_form(BytesView spki, const std::array<std::uint8_t, N>& prefix, std::size_t key_bytes) {
  return spki.size() == N + key_bytes && std::equal(prefix.begin(), prefix.end(), spki.begin());
}

bool is_small_order(BytesView point) {
  Bytes y(point.begin(), point.end());
  y.back() &= 0x7fU;
  return std::find(kSmallOrder.begin(), kSmallOrder.end(), base::to_hex(y)) != kSmallOrder.end();
}

Error bad(std::string_view why) { return Error(Errc::kInvalidArgument, "read public key: " + std::string(why)); }

// One DER INTEGER, positive, minimal, at most 32 significant bytes; removed from `rest`.
bool take_integer(BytesView& rest) noexcept {
  if (rest.size() < 3 || rest[0] != 0x02) {
    return false;
  }
  const std::size_t length = rest[1];
  if (length == 0 || length > 33 || rest.size() < 2 + length) {
    return false;
  }
  const BytesView value = rest.subspan(2, length);
  const bool negative = (value[0] & 0x80U) != 0;
  const bool zero = length == 1 && value[0] == 0;
  const bool padded = length > 1 && value[0] == 0 && (value[1] & 0x80U) == 0;
  const bool too_long = length == 33 && value[0] != 0;
  rest = rest.subspan(2 + length);
  return !negative && !zero && !padded && !too_long;
}

}  // namespace

std::string_view to_string(Algorithm algorithm) noexcept {
  return algorithm == Algorithm::kEd25519 ? "ed25519" : "ecdsa-p256";
}

bool well_formed(Algorithm algorithm, BytesView signature) noexcept {
  if (algorithm == Algorithm::kEd25519) {
    return signature.size() == 64;
  }
  if (signature.size() < 8 || signature.size() > 72 || signature[0] != 0x30 || signature[1] != signature.size() - 2) {
    return false;
  }
  BytesView rest = signature.subspan(2);
  return take_integer(rest) && take_integer(rest) && rest.empty();
}

PublicKey::PublicKey(std::shared_ptr<evp_pkey_st> key, Algorithm algorithm, Bytes der)
    : key_(std::move(key)), algorithm_(algorithm), der_(std::move(der)), key_id_(hex(sha256(der_))) {}

Result<PublicKey> PublicKey::from_pem(std::string_view pem) {
  const Bytes der = CR_TRY(ossl::read_pem(pem, "PUBLIC KEY"));
  return from_der(der);
}

Result<PublicKey> PublicKey::from_der(BytesView spki) {
  const ossl::ClearErrors clear;
  Algorithm algorithm = Algorithm::kEd25519;
  if (has_form(spki, kEd25519Prefix, kEd25519Bytes)) {
    if (is_small_order(spki.subspan(kEd25519Prefix.size()))) {
      return bad("an Ed25519 point of small order");
    }
  } else if (has_form(spki, kP256Prefix, kP256Bytes)) {
    algorithm = Algorithm::kEcdsaP256;
  } else {
    return bad("neither Ed25519 nor ECDSA P-256 (named curve, uncompressed point)");
  }
  const unsigned char* at = spki.data();
  auto key = ossl::own(d2i_PUBKEY(nullptr, &at, static_cast<long>(spki.size())));
  if (key == nullptr) {
    return bad("not a point of the curve");
  }
  // Importing an EC key checks the equation of the curve; P-256 has no cofactor, so that is the whole check.
  return PublicKey(std::move(key), algorithm, Bytes(spki.begin(), spki.end()));
}

std::string PublicKey::pem() const {
  const std::string body = base::to_base64(der_);
  std::string out = "-----BEGIN PUBLIC KEY-----\n";
  for (std::size_t i = 0; i < body.size(); i += 64) {
    out += body.substr(i, 64) + "\n";
  }
  return out + "-----END PUBLIC KEY-----\n";
}

bool PublicKey::verify(BytesView message, BytesView signature) const noexcept {
  if (!well_formed(algorithm_, signature)) {
    return false;
  }
  const ossl::ClearErrors clear;
  const ossl::MdContext context(EVP_MD_CTX_new());
  const EVP_MD* md = algorithm_ == Algorithm::kEd25519 ? nullptr : EVP_sha256();
  return context != nullptr && EVP_DigestVerifyInit(context.get(), nullptr, md, nullptr, key_.get()) == 1 &&
         EVP_DigestVerify(context.get(), signature.data(), signature.size(), message.data(), message.size()) == 1;
}

}  // namespace cellrund::crypto
