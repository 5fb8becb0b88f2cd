// Keyring: the pinned public keys that a verifier consults, each with what ends its trust.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.hpp"
#include "crypto/keys.hpp"

namespace cellrund::crypto {

struct KeyringEntry {
  PublicKey key;
  bool revoked = false;
  std::optional<base::WallTime> not_after;  // trusted before this moment only
};

class Keyring {
 public:
  // Bounds the work that one hostile envelope can cause: at most this many verifications per signature.
  static constexpr std::size_t kMaxKeys = 128;

  // kAlreadyExists when the key is in the ring, kResourceExhausted when the ring is full.
  base::Status add(KeyringEntry entry);
  [[nodiscard]] const KeyringEntry* find(std::string_view key_id) const noexcept;
  [[nodiscard]] const std::vector<KeyringEntry>& entries() const noexcept { return entries_; }
  [[nodiscard]] bool empty() const noexcept { return entries_.empty(); }

 private:
  std::vector<KeyringEntry> entries_;
};

}  // namespace cellrund::crypto
