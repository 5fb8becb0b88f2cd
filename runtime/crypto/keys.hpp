// Signing keys: Ed25519 (RFC 8032) and ECDSA over P-256 with SHA-256 (FIPS 186-5), nothing else.
//
// A public key is accepted only as the one canonical SubjectPublicKeyInfo of its kind (RFC 8410; RFC 5480 with the
// named curve and an uncompressed point), so that a key has exactly one id. Small-order Ed25519 points, under which
// anyone can make "valid" signatures, are refused.
//
// ECDSA signatures are strict DER. Both s and n-s are accepted: openssl and cosign do not normalise s, so half of all
// honest signatures would fail otherwise, and nothing here is named by its signature (jobs by uid and payload digest,
// records by the digest of the whole envelope). Ed25519 with s >= L is refused, as RFC 8032 section 5.1.7 demands.
// Keys are immutable; all members may be called from several threads.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/file.hpp"
#include "base/result.hpp"

struct evp_pkey_st;

namespace cellrund::crypto {

enum class Algorithm { kEd25519, kEcdsaP256 };
[[nodiscard]] std::string_view to_string(Algorithm algorithm) noexcept;  // "ed25519", "ecdsa-p256"

class PublicKey {
 public:
  // One "PUBLIC KEY" PEM block and nothing but white space besides; at most 4 KiB.
  static base::Result<PublicKey> from_pem(std::string_view pem);
  static base::Result<PublicKey> from_der(base::BytesView spki);

  [[nodiscard]] Algorithm algorithm() const noexcept { return algorithm_; }
  // Lower-case hex SHA-256 of the SPKI DER, 64 characters.
  [[nodiscard]] const std::string& key_id() const noexcept { return key_id_; }
  [[nodiscard]] const base::Bytes& der() const noexcept { return der_; }
  [[nodiscard]] std::string pem() const;
  [[nodiscard]] bool verify(base::BytesView message, base::BytesView signature) const noexcept;

 private:
  PublicKey(std::shared_ptr<evp_pkey_st> key, Algorithm algorithm, base::Bytes der);
  std::shared_ptr<evp_pkey_st> key_;  // shared between copies: libcrypto counts and never changes it after parsing
  Algorithm algorithm_;
  base::Bytes der_;
  std::string key_id_;
};

// Whether `signature` has the outer form of this algorithm: 64 bytes, or a strict DER pair of positive integers.
[[nodiscard]] bool well_formed(Algorithm algorithm, base::BytesView signature) noexcept;

class PrivateKey {
 public:
  static base::Result<PrivateKey> generate(Algorithm algorithm = Algorithm::kEd25519);
  // One unencrypted PKCS#8 "PRIVATE KEY" PEM block, as `openssl genpkey` writes it; at most 4 KiB.
  static base::Result<PrivateKey> from_pem(std::string_view pem);
  // from_pem() of a file that belongs to root or to us and that no one else can read or write.
  static base::Result<PrivateKey> load(const std::string& path);

  [[nodiscard]] base::Result<std::string> pem() const;
  [[nodiscard]] const PublicKey& public_key() const noexcept { return public_; }
  [[nodiscard]] base::Result<base::Bytes> sign(base::BytesView message) const;

  PrivateKey(PrivateKey&&) noexcept = default;
  PrivateKey& operator=(PrivateKey&&) noexcept = default;
  PrivateKey(const PrivateKey&) = delete;
  PrivateKey& operator=(const PrivateKey&) = delete;
  ~PrivateKey() = default;

 private:
  PrivateKey(std::shared_ptr<evp_pkey_st> key, PublicKey public_key);
  std::shared_ptr<evp_pkey_st> key_;  // never shared; the type only carries the deleter
  PublicKey public_;
};

}  // namespace cellrund::crypto
