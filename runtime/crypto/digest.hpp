// SHA-256 (FIPS 180-4) on libcrypto's EVP. A Sha256 belongs to one thread at a time.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/file.hpp"
#include "base/result.hpp"

struct evp_md_ctx_st;

namespace cellrund::crypto {

using Digest = std::array<std::uint8_t, 32>;

class Sha256 {
 public:
  Sha256();
  void update(base::BytesView bytes);
  void update(std::string_view text) { update(base::as_bytes(text)); }
  // The digest of everything so far; the object is then spent.
  [[nodiscard]] Digest finish();

 private:
  struct Free {
    void operator()(evp_md_ctx_st* context) const noexcept;
  };
  std::unique_ptr<evp_md_ctx_st, Free> context_;
};

[[nodiscard]] Digest sha256(base::BytesView bytes);
[[nodiscard]] std::string hex(const Digest& digest);
// "sha256:<64 lower-case hex digits>", the form of every digest in specs, names and evidence.
[[nodiscard]] std::string digest_text(const Digest& digest);
[[nodiscard]] std::string digest_text(base::BytesView bytes);
[[nodiscard]] bool is_digest_text(std::string_view text) noexcept;

// digest_text() of a file's content by pread(2) from offset 0: the descriptor's own offset does not move.
// kResourceExhausted above `limit` bytes.
base::Result<std::string> digest_of_fd(int fd, std::uint64_t limit);

}  // namespace cellrund::crypto
