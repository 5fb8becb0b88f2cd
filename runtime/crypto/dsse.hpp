// DSSE, the Dead Simple Signing Envelope (github.com/secure-systems-lab/dsse, envelope.md and protocol.md, v1.0.2).
//
// The signature covers PAE(payloadType, payload): type confusion fails, and no canonical JSON is needed. `keyid` is not
// authenticated; it may order the search for a key and never decides anything.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/file.hpp"
#include "base/result.hpp"
#include "crypto/keys.hpp"

namespace cellrund::crypto::dsse {

struct Signature {
  std::string keyid;  // a hint; may be empty
  base::Bytes sig;
};

struct Envelope {
  std::string payload_type;
  base::Bytes payload;
  std::vector<Signature> signatures;
};

struct Limits {
  std::size_t max_payload_bytes = 256UL * 1024;
  std::size_t max_signatures = 8;
};

// "DSSEv1" SP LEN(type) SP type SP LEN(body) SP body.
[[nodiscard]] base::Bytes pae(std::string_view payload_type, base::BytesView payload);

// Exactly {payload, payloadType, signatures: [{sig, keyid?}]}; any other key is refused, and so is everything that
// base/json.hpp refuses. An empty list of signatures is well-formed and verifies under no key.
base::Result<Envelope> parse(base::BytesView text, const Limits& limits);
// Compact JSON, standard base64 with padding.
[[nodiscard]] std::string write(const Envelope& envelope);

base::Result<Envelope> sign(std::string_view payload_type, base::BytesView payload, const PrivateKey& key);

// True when at least one signature of the envelope verifies under this key.
[[nodiscard]] bool verifies(const Envelope& envelope, const PublicKey& key);

}  // namespace cellrund::crypto::dsse
