// Private to crypto/: owners of libcrypto objects and PEM reading.
#pragma once

#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>

#include <memory>
#include <string>
#include <string_view>

#include "base/file.hpp"
#include "base/result.hpp"

namespace cellrund::crypto::ossl {

struct FreeBio {
  void operator()(BIO* bio) const noexcept { BIO_free_all(bio); }
};
struct FreePkeyContext {
  void operator()(EVP_PKEY_CTX* context) const noexcept { EVP_PKEY_CTX_free(context); }
};
struct FreeMdContext {
  void operator()(EVP_MD_CTX* context) const noexcept { EVP_MD_CTX_free(context); }
};
using Bio = std::unique_ptr<BIO, FreeBio>;
using PkeyContext = std::unique_ptr<EVP_PKEY_CTX, FreePkeyContext>;
using MdContext = std::unique_ptr<EVP_MD_CTX, FreeMdContext>;

inline std::shared_ptr<EVP_PKEY> own(EVP_PKEY* key) {
  return {key, [](EVP_PKEY* k) { EVP_PKEY_free(k); }};
}

// The thread's libcrypto error queue must not grow with every refused key or signature.
struct ClearErrors {
  ClearErrors() = default;
  ClearErrors(const ClearErrors&) = delete;
  ClearErrors& operator=(const ClearErrors&) = delete;
  ClearErrors(ClearErrors&&) = delete;
  ClearErrors& operator=(ClearErrors&&) = delete;
  ~ClearErrors() { ERR_clear_error(); }
};

inline constexpr std::size_t kMaxPemBytes = 4096;

// The decoded body of one PEM block of this label (RFC 7468), with nothing but white space around it. The caller wipes
// it when it is secret.
base::Result<base::Bytes> read_pem(std::string_view pem, std::string_view label);

}  // namespace cellrund::crypto::ossl
