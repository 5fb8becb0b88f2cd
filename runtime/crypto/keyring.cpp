#include "crypto/keyring.hpp"

#include <utility>

namespace cellrund::crypto {

base::Status Keyring::add(KeyringEntry entry) {
  if (find(entry.key.key_id()) != nullptr) {
    return base::Error(base::Errc::kAlreadyExists, "add key: " + entry.key.key_id() + ": already in the ring");
  }
  if (entries_.size() >= kMaxKeys) {
    return base::Error(base::Errc::kResourceExhausted, "add key: more than " + std::to_string(kMaxKeys) + " keys");
  }
  entries_.push_back(std::move(entry));
  return base::ok();
}

const KeyringEntry* Keyring::find(std::string_view key_id) const noexcept {
  for (const KeyringEntry& entry : entries_) {
    if (entry.key.key_id() == key_id) {
      return &entry;
    }
  }
  return nullptr;
}

}  // namespace cellrund::crypto
