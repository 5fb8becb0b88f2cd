#include <fcntl.h>
#include <openssl/x509.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hex.hpp"
#include "crypto/keys.hpp"
#include "crypto/openssl.hpp"

namespace cellrund::crypto {

using base::Bytes;
using base::BytesView;
using base::Errc;
using base::Error;
using base::Result;

namespace {

struct FreePkcs8 {
  void operator()(PKCS8_PRIV_KEY_INFO* info) const noexcept { PKCS8_PRIV_KEY_INFO_free(info); }
};
using Pkcs8 = std::unique_ptr<PKCS8_PRIV_KEY_INFO, FreePkcs8>;

// Wipes what it refers to when the scope ends.
template <typename Container>
class Wipe {
 public:
  explicit Wipe(Container& secret) noexcept : secret_(secret) {}
  Wipe(const Wipe&) = delete;
  Wipe& operator=(const Wipe&) = delete;
  Wipe(Wipe&&) = delete;
  Wipe& operator=(Wipe&&) = delete;
  ~Wipe() { OPENSSL_cleanse(secret_.data(), secret_.size()); }

 private:
  Container& secret_;
};

Result<PublicKey> public_half(EVP_PKEY* key) {
  unsigned char* der = nullptr;
  const int length = i2d_PUBKEY(key, &der);
  if (length <= 0) {
    return Error(Errc::kInvalidArgument, "derive public key: libcrypto refused");
  }
  const Bytes spki(der, der + length);
  OPENSSL_free(der);
  return PublicKey::from_der(spki);
}

}  // namespace

PrivateKey::PrivateKey(std::shared_ptr<evp_pkey_st> key, PublicKey public_key)
    : key_(std::move(key)), public_(std::move(public_key)) {}

Result<PrivateKey> PrivateKey::generate(Algorithm algorithm) {
  const ossl::ClearErrors clear;
  auto key = ossl::own(algorithm == Algorithm::kEd25519 ? EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519")
                                                        : EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "P-256"));
  if (key == nullptr) {
    return Error(Errc::kUnavailable, "generate key: libcrypto failed");
  }
  PublicKey half = CR_TRY(public_half(key.get()));
  return PrivateKey(std::move(key), std::move(half));
}

Result<PrivateKey> PrivateKey::from_pem(std::string_view pem) {
  const ossl::ClearErrors clear;
  Bytes der = CR_TRY(ossl::read_pem(pem, "PRIVATE KEY"));
  const Wipe wipe(der);
  const unsigned char* at = der.data();
  const Pkcs8 info(d2i_PKCS8_PRIV_KEY_INFO(nullptr, &at, static_cast<long>(der.size())));
  if (info == nullptr || at != der.data() + der.size()) {
    return Error(Errc::kInvalidArgument, "read private key: not PKCS#8");
  }
  auto key = ossl::own(EVP_PKCS82PKEY(info.get()));
  if (key == nullptr) {
    return Error(Errc::kInvalidArgument, "read private key: not a key that libcrypto knows");
  }
  PublicKey half = CR_TRY(public_half(key.get()).context("read private key"));
  return PrivateKey(std::move(key), std::move(half));
}

Result<PrivateKey> PrivateKey::load(const std::string& path) {
  const auto fd = CR_TRY(base::open_file(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK).context("load private key"));
  struct stat st {};
  if (fstat(fd.get(), &st) != 0) {
    return Error::from_errno("load private key: " + path + ": fstat");
  }
  const auto refuse = [&path](Errc code, const char* why) { return Error(code, "load private key: " + path + ": " + why); };
  if (!S_ISREG(st.st_mode)) {
    return refuse(Errc::kInvalidArgument, "not a regular file");
  }
  if (st.st_uid != 0 && st.st_uid != geteuid()) {
    return refuse(Errc::kPermissionDenied, "belongs to another user");
  }
  if ((st.st_mode & 077U) != 0) {
    return refuse(Errc::kPermissionDenied, "readable by others; `chmod 600` it and consider the key known");
  }
  std::string pem = CR_TRY(base::read_fd(fd.get(), ossl::kMaxPemBytes).context("load private key: " + path));
  const Wipe wipe(pem);
  return from_pem(pem).context("load private key: " + path);
}

Result<std::string> PrivateKey::pem() const {
  const ossl::ClearErrors clear;
  const Pkcs8 info(EVP_PKEY2PKCS8(key_.get()));
  unsigned char* der = nullptr;
  const int length = info == nullptr ? -1 : i2d_PKCS8_PRIV_KEY_INFO(info.get(), &der);
  if (length <= 0) {
    return Error(Errc::kUnknown, "write private key: libcrypto refused");
  }
  std::string body = base::to_base64(BytesView(der, static_cast<std::size_t>(length)));
  const Wipe wipe(body);
  OPENSSL_clear_free(der, static_cast<std::size_t>(length));
  std::string out = "-----BEGIN PRIVATE KEY-----\n";
  out.reserve(512);  // no reallocation may leave a copy behind
  for (std::size_t i = 0; i < body.size(); i += 64) {
    out.append(body, i, 64).append("\n");
  }
  return out.append("-----END PRIVATE KEY-----\n");
}

Result<Bytes> PrivateKey::sign(BytesView message) const {
  const ossl::ClearErrors clear;
  const ossl::MdContext context(EVP_MD_CTX_new());
  const EVP_MD* md = public_.algorithm() == Algorithm::kEd25519 ? nullptr : EVP_sha256();
  Bytes signature(72);  // the longest: DER of two 33-byte integers
  std::size_t length = signature.size();
  if (context == nullptr || EVP_DigestSignInit(context.get(), nullptr, md, nullptr, key_.get()) != 1 ||
      EVP_DigestSign(context.get(), signature.data(), &length, message.data(), message.size()) != 1) {
    return Error(Errc::kUnknown, "sign: libcrypto failed");
  }
  signature.resize(length);
  return signature;
}

}  // namespace cellrund::crypto
