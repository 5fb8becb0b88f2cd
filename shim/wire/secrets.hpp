// A job's secrets on their way: from the daemon to the shim over a socket in the cell's folder, and to the guest in SECRET
// frames. They stand in no OCI spec, workload, argument, environment, log or record.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "base/file.hpp"
#include "base/result.hpp"
#include "base/secret.hpp"
#include "shim/wire/frame.hpp"

namespace cellrund::wire {

inline constexpr std::size_t kMaxSecrets = 16;
inline constexpr std::size_t kMaxSecretBytes = 64 * 1024;  // of one value
inline constexpr const char* kSecretsPath = "/run/secrets";

struct NamedSecret {
  std::string name;           // the file below kSecretsPath
  std::chrono::seconds ttl{0};  // from START; 0: until the job ends
  base::Secret value;
};

// 1 to 63 of a-z, A-Z, 0-9, '.', '_' and '-', no '.' first: one path component that hides nothing.
[[nodiscard]] bool is_secret_name(std::string_view name) noexcept;

// The message on the socket. A decoder refuses names and sizes out of bounds, doubles, and anything short or long.
[[nodiscard]] base::WipedBytes encode_secrets(const std::vector<NamedSecret>& secrets);
base::Result<std::vector<NamedSecret>> decode_secrets(base::BytesView bytes);
inline constexpr std::size_t kMaxSecretsMessage = kMaxSecrets * (kMaxSecretBytes + 128);

// SECRET (H→G, between READY and START): a piece of one value, in order; the last is marked. REVOKE (H→G): its name.
struct SecretPiece {
  std::string name;
  bool last = false;
  base::BytesView bytes;
};
inline constexpr std::size_t kMaxSecretPiece = kMaxPayload / 2;
[[nodiscard]] base::WipedBytes encode(const SecretPiece& piece);
base::Result<SecretPiece> decode_secret_piece(base::BytesView payload);  // `bytes` lies in `payload`
[[nodiscard]] base::Bytes encode_revoke(std::string_view name);
base::Result<std::string> decode_revoke(base::BytesView payload);

}  // namespace cellrund::wire
