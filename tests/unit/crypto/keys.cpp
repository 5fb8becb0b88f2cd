#include "crypto/keys.hpp"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "base/hex.hpp"
#include "crypto/keyring.hpp"

using namespace cellrund;
using base::Bytes;

namespace {

Bytes unhex(const std::string& text) {
  auto bytes = base::from_hex(text);
  REQUIRE(bytes.ok());
  return std::move(*bytes);
}

crypto::PublicKey ed25519(const std::string& raw) {
  auto key = crypto::PublicKey::from_der(unhex("302a300506032b6570032100" + raw));
  REQUIRE(key.ok());
  return std::move(*key);
}

crypto::PublicKey p256(const std::string& x, const std::string& y) {
  auto key = crypto::PublicKey::from_der(unhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004" + x + y));
  REQUIRE(key.ok());
  return std::move(*key);
}

// RFC 6979 appendix A.2.5.
const char* const kX = "60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6";
const char* const kY = "7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299";
const char* const kSampleR = "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716";
const char* const kSampleS = "f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8";

// Made by `openssl genpkey -algorithm ed25519`, and `openssl pkeyutl -sign -rawin` over "hello".
const char* const kEdPrivate =
    "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIC7qKD132VgfQWm06U+sDzUYAhLu34YwWjAjhGu5ZMJ8\n-----END PRIVATE KEY-----\n";
const char* const kEdPublic =
    "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAooRxaYBzIvxWg2PW0ikbXXIJjM4mhraN02JEdLQ0iXM=\n-----END PUBLIC KEY-----\n";
const char* const kEdSignature =
    "ae5d8d1521f491f9b0fde180204234fb9326b4e1b0a0b777a22ca7024b174c741447d840a0586b48fa936753bd8f39977b45b798e1636a6ac7bde08998f7c301";

// Made by `openssl ecparam -name prime256v1 -genkey | openssl pkcs8 -topk8 -nocrypt`.
const char* const kEcPrivate =
    "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgjAeSU3jd8zY+k8WP\n"
    "fTerx8mWgSj00BG0Pd+XmlnIE/ehRANCAATDMimrWXhXwhACjhayYM/PWLq6gF4i\n"
    "WlxE6u+ZMfqMAnzHjtKbgtyPICM5TkT+yNUcQomehe9jbUTVgUbubXvb\n-----END PRIVATE KEY-----\n";
const char* const kEcPublic =
    "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEwzIpq1l4V8IQAo4WsmDPz1i6uoBe\n"
    "IlpcROrvmTH6jAJ8x47Sm4LcjyAjOU5E/sjVHEKJnoXvY21E1YFG7m172w==\n-----END PUBLIC KEY-----\n";

}  // namespace

TEST_CASE("Ed25519 verifies the vectors of RFC 8032 and nothing near them") {
  struct Vector {
    const char *key, *message, *signature;
  };
  const std::vector<Vector> vectors = {
      {"d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
       "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"},
      {"3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
       "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"},
      {"fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82",
       "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"},
  };
  for (const Vector& vector : vectors) {
    const auto key = ed25519(vector.key);
    const Bytes message = unhex(vector.message);
    Bytes signature = unhex(vector.signature);
    CHECK(key.verify(message, signature));
    for (std::size_t i = 0; i < signature.size() * 8; ++i) {
      signature[i / 8] ^= static_cast<std::uint8_t>(1U << (i % 8));
      CHECK_FALSE(key.verify(message, signature));
      signature[i / 8] ^= static_cast<std::uint8_t>(1U << (i % 8));
    }
    Bytes longer = message;
    longer.push_back(0);
    CHECK_FALSE(key.verify(longer, signature));
    CHECK_FALSE(key.verify(message, base::BytesView(signature).first(63)));
    CHECK_FALSE(key.verify(message, {}));
  }
}

TEST_CASE("Ed25519 refuses s + L, the same signature in another spelling") {
  const auto key = ed25519("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c");
  Bytes signature = unhex("92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00");
  const Bytes order = unhex("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
  unsigned carry = 0;
  for (std::size_t i = 0; i < 32; ++i) {
    carry += static_cast<unsigned>(signature[32 + i]) + order[i];
    signature[32 + i] = static_cast<std::uint8_t>(carry & 0xffU);
    carry >>= 8U;
  }
  CHECK_FALSE(key.verify(unhex("72"), signature));
}

TEST_CASE("Ed25519 keys of small order are refused") {
  for (const char* raw : {"0000000000000000000000000000000000000000000000000000000000000000",
                          "0100000000000000000000000000000000000000000000000000000000000080",
                          "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
                          "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"}) {
    CAPTURE(raw);
    CHECK_FALSE(crypto::PublicKey::from_der(unhex(std::string("302a300506032b6570032100") + raw)).ok());
  }
}

TEST_CASE("P-256 verifies the vectors of RFC 6979") {
  const auto key = p256(kX, kY);
  CHECK(key.verify(base::as_bytes("sample"), unhex(std::string("3046022100") + kSampleR + "022100" + kSampleS)));
  CHECK(key.verify(base::as_bytes("test"), unhex("3045022100f1abb023518351cd71d881567b1ea663ed3efcf6c5132b354f28d3b0b7d383670220"
                                                 "019f4113742a2b14bd25926b49c649155f267e60d3814b4c0cc84250e46f0083")));
  CHECK_FALSE(key.verify(base::as_bytes("sampl"), unhex(std::string("3046022100") + kSampleR + "022100" + kSampleS)));
}

TEST_CASE("P-256 accepts n-s, as every signer makes it half of the time") {
  const auto key = p256(kX, kY);
  // n - s of the vector above.
  CHECK(key.verify(base::as_bytes("sample"), unhex(std::string("3045022100") + kSampleR +
                                                   "02200834e36ad29a83bf2bc9385e491d6099c8fdf9d1ed67aa7ea5f51f93782857a9")));
}

TEST_CASE("P-256 signatures that are not strict DER are refused") {
  const auto key = p256(kX, kY);
  const std::string r = kSampleR;
  const std::string s = kSampleS;
  for (const std::string& text : std::vector<std::string>{
           r + s,                                                                      // P1363
           "3080022100" + r + "022100" + s + "0000",                                   // indefinite length
           "308146022100" + r + "022100" + s,                                          // long form of a short length
           "3046022100" + r + "022100" + s + "00",                                     // trailing byte
           "3047022100" + r + "022100" + s + "00",                                     // trailing byte, counted in
           "304702220000" + r + "022100" + s,                                       // padded integer
           "30440220" + r + "0220" + s,                                                // negative integers
           "3026020100022100" + s,                                                  // r = 0
           "3006020100020100",                                                         // both 0
           "3006020101020101",                                                         // both 1
           "3000", "30", ""}) {
    CAPTURE(text);
    CHECK_FALSE(key.verify(base::as_bytes("sample"), unhex(text)));
  }
}

TEST_CASE("keys and signatures of the openssl command line work") {
  const auto ed_private = crypto::PrivateKey::from_pem(kEdPrivate);
  const auto ed_public = crypto::PublicKey::from_pem(kEdPublic);
  REQUIRE(ed_private.ok());
  REQUIRE(ed_public.ok());
  CHECK(ed_public->key_id() == "82968efcf2e2e2cf771839ab1b8871ba79f77a458c7036a050f5837129d169fd");
  CHECK(ed_private->public_key().key_id() == ed_public->key_id());
  CHECK(ed_public->pem() == kEdPublic);
  CHECK(*ed_private->pem() == kEdPrivate);
  CHECK(*ed_private->sign(base::as_bytes("hello")) == unhex(kEdSignature));
  CHECK(ed_public->verify(base::as_bytes("hello"), unhex(kEdSignature)));

  const auto ec_private = crypto::PrivateKey::from_pem(kEcPrivate);
  const auto ec_public = crypto::PublicKey::from_pem(kEcPublic);
  REQUIRE(ec_private.ok());
  REQUIRE(ec_public.ok());
  CHECK(ec_private->public_key().key_id() == ec_public->key_id());
  CHECK(ec_public->pem() == kEcPublic);
  for (const char* signature :  // low s, high s
       {"30440220461146007d15f6c2a1b68b949bb378803e0353b4a21272f14351f59a98b2099102203ec811222c8af4065350d2f4f8b3dab3fb9dea8de63f6debdc49648f2c74ee21",
        "30460221008cbb5812f380829c8ea3756890172fe59a836326062d2604d2c79728e858d6d2022100c1dc0cedb752a7d695b22b895c454d9fae703e52041f54735bf667ccdaa99209"}) {
    CHECK(ec_public->verify(base::as_bytes("hello"), unhex(signature)));
    CHECK_FALSE(ec_public->verify(base::as_bytes("hellp"), unhex(signature)));
  }
}

TEST_CASE("keys of other kinds and encodings are refused") {
  const std::vector<std::pair<const char*, const char*>> bad = {
      {"explicit curve parameters",
       "MIIBSzCCAQMGByqGSM49AgEwgfcCAQEwLAYHKoZIzj0BAQIhAP////8AAAABAAAAAAAAAAAAAAAA////////////////MFsEIP////8AAAABAAAAAAAAAAAAAAAA////"
       "///////////8BCBaxjXYqjqT57PrvVV2mIa8ZR0GsMxTsPY7zjw+J9JgSwMVAMSdNgiG5wSTamZ44ROdJreBn36QBEEEaxfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5"
       "RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9QIhAP////8AAAAA//////////+85vqtpxeehPO5ysL8YyVRAgEBA0IABMlFxs+jU4o7DXLBvq07LGIz"
       "aij7PUA8Q2E62h1wnquB0aJNCNXhMqTfcrkumZLcsAc36e1jgYIDyNtDnFnQFuo="},
      {"compressed point", "MDkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDIgAD8FSdBW2jR3cwr2MwFBNePWuFaE2TPZklArNKFpXisVM="},
      {"P-384",
       "MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEmytBEcYFQ9XFRDB4QfAWaAdiCtDoSsJ6+lpix8sqDn9Rn/pocrqKoFCYpwPiT96En7cYZ5gsgWhLtj8bf4XhSEZR3/kTdxvE"
       "HXxw4IRCn2nqx46QpiX4J28Xdd9y0Xf1"},
      {"X25519", "MCowBQYDK2VuAyEAN3dNLISLNRCYNCUyGv/dzEkpl7qi7LPBvTHx8ICVlmU="},
      {"point off the curve",
       "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEwzIpq1l4V8IQAo4WsmDPz1i6uoBeIlpcROrvmTH6jAJ8x47Sm4LcjyAjOU5E/sjVHEKJnoXvY21E1YFG7m173A=="},
      {"empty", ""},
      {"not base64", "@@@@"},
  };
  for (const auto& [what, body] : bad) {
    CAPTURE(what);
    CHECK_FALSE(crypto::PublicKey::from_pem("-----BEGIN PUBLIC KEY-----\n" + std::string(body) + "\n-----END PUBLIC KEY-----\n").ok());
  }
  const std::string good = kEdPublic;
  CHECK(crypto::PublicKey::from_pem("\n" + good + "\n").ok());
  CHECK_FALSE(crypto::PublicKey::from_pem(good + good).ok());
  CHECK_FALSE(crypto::PublicKey::from_pem("junk\n" + good).ok());
  CHECK_FALSE(crypto::PublicKey::from_pem(kEdPrivate).ok());
  CHECK_FALSE(crypto::PublicKey::from_pem(std::string(5000, '\n') + good).ok());
  CHECK_FALSE(crypto::PrivateKey::from_pem(kEdPublic).ok());
  CHECK_FALSE(crypto::PrivateKey::from_pem("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").ok());
}

TEST_CASE("what a generated key signs, its public half verifies, also after a round through PEM") {
  for (const auto algorithm : {crypto::Algorithm::kEd25519, crypto::Algorithm::kEcdsaP256}) {
    const auto key = crypto::PrivateKey::generate(algorithm);
    REQUIRE(key.ok());
    CHECK(key->public_key().algorithm() == algorithm);
    const auto again = crypto::PrivateKey::from_pem(*key->pem());
    REQUIRE(again.ok());
    const auto signature = again->sign(base::as_bytes("message"));
    REQUIRE(signature.ok());
    CHECK(crypto::well_formed(algorithm, *signature));
    CHECK(key->public_key().verify(base::as_bytes("message"), *signature));
    const auto other = crypto::PrivateKey::generate(algorithm);
    CHECK_FALSE(other->public_key().verify(base::as_bytes("message"), *signature));
  }
}

TEST_CASE("a private key file that others can read is refused") {
  const std::string path = "/tmp/cellrun-unit-crypto-" + std::to_string(getpid()) + ".key";
  for (const auto& [mode, accepted] : {std::pair{0600U, true}, {0400U, true}, {0640U, false}, {0604U, false}}) {
    CAPTURE(mode);
    REQUIRE(base::write_file_atomic(path, kEdPrivate, mode).ok());
    CHECK(crypto::PrivateKey::load(path).ok() == accepted);
  }
  const std::string link = path + ".link";
  REQUIRE(symlink(path.c_str(), link.c_str()) == 0);
  REQUIRE(chmod(path.c_str(), 0600) == 0);
  CHECK_FALSE(crypto::PrivateKey::load(link).ok());
  CHECK(base::remove_file(link).ok());
  CHECK(base::remove_file(path).ok());
}

TEST_CASE("a keyring holds a key once and has an end") {
  crypto::Keyring ring;
  const auto key = ed25519("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
  CHECK(ring.add({key, false, {}}).ok());
  CHECK_FALSE(ring.add({key, true, {}}).ok());
  CHECK(ring.find(key.key_id()) != nullptr);
  CHECK(ring.find("") == nullptr);
  while (ring.entries().size() < crypto::Keyring::kMaxKeys) {
    CHECK(ring.add({crypto::PrivateKey::generate()->public_key(), false, {}}).ok());
  }
  CHECK_FALSE(ring.add({crypto::PrivateKey::generate()->public_key(), false, {}}).ok());
}
