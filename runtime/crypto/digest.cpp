#include "crypto/digest.hpp"

#include <openssl/evp.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "base/hex.hpp"

namespace cellrund::crypto {

using base::Errc;
using base::Error;
using base::Result;

void Sha256::Free::operator()(evp_md_ctx_st* context) const noexcept { EVP_MD_CTX_free(context); }

// SHA-256 of the default provider cannot fail but for memory, and then nothing of this program can go on.
Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  CR_ASSERT(context_ != nullptr && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1);
}

void Sha256::update(base::BytesView bytes) {
  CR_ASSERT(context_ != nullptr && EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) == 1);
}

Digest Sha256::finish() {
  Digest out{};
  unsigned length = 0;
  CR_ASSERT(context_ != nullptr && EVP_DigestFinal_ex(context_.get(), out.data(), &length) == 1 && length == out.size());
  context_.reset();
  return out;
}

Digest sha256(base::BytesView bytes) {
  Sha256 hash;
  hash.update(bytes);
  return hash.finish();
}

std::string hex(const Digest& digest) { return base::to_hex(digest); }
std::string digest_text(const Digest& digest) { return "sha256:" + hex(digest); }
std::string digest_text(base::BytesView bytes) { return digest_text(sha256(bytes)); }

bool is_digest_text(std::string_view text) noexcept {
  constexpr std::string_view kPrefix = "sha256:";
  if (!text.starts_with(kPrefix) || text.size() != kPrefix.size() + 2 * sizeof(Digest)) {
    return false;
  }
  text.remove_prefix(kPrefix.size());
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

Result<std::string> digest_of_fd(int fd, std::uint64_t limit) {
  Sha256 hash;
  std::vector<std::uint8_t> buffer(256UL * 1024);
  std::uint64_t total = 0;
  while (true) {
    const ssize_t n = pread(fd, buffer.data(), buffer.size(), static_cast<off_t>(total));
    if (n < 0) {
      if (errno == EINTR) {
        continue;
      }
      return Error::from_errno("hash file: pread");
    }
    if (n == 0) {
      return digest_text(hash.finish());
    }
    total += static_cast<std::uint64_t>(n);
    if (total > limit) {
      return Error(Errc::kResourceExhausted, "hash file: longer than " + std::to_string(limit) + " bytes");
    }
    hash.update(base::BytesView(buffer.data(), static_cast<std::size_t>(n)));
  }
}

}  // namespace cellrund::crypto
