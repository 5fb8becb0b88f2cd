// The record verifier and the summary below the signature: the input is signed with a key of the harness, so that the
// statement parser and the printer see it. Properties: no crash, and the summary is fit for a terminal.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "crypto/dsse.hpp"
#include "evidence/statement.hpp"
#include "evidence/summary.hpp"
#include "evidence/verify.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace cellrund;
  static const auto kKey = crypto::PrivateKey::from_pem(
      "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIC7qKD132VgfQWm06U+sDzUYAhLu34YwWjAjhGu5ZMJ8\n-----END PRIVATE KEY-----\n");
  const base::BytesView bytes(data, size);
  (void)evidence::verify(bytes, kKey->public_key());  // as bytes from a stranger
  const auto envelope = crypto::dsse::sign(evidence::kPayloadType, bytes, *kKey);
  if (!envelope.ok()) {
    return 0;
  }
  const auto record = evidence::verify(base::as_bytes(crypto::dsse::write(*envelope)), kKey->public_key());
  if (record.ok()) {
    for (const char c : evidence::summary(*record)) {
      if (c != '\n' && (c >= 0 && c < 0x20)) {
        std::abort();
      }
    }
  }
  return 0;
}
