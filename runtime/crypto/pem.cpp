#include <algorithm>
#include <string>

#include "base/hex.hpp"
#include "crypto/openssl.hpp"

namespace cellrund::crypto::ossl {

using base::Errc;
using base::Error;
using base::Result;

namespace {

constexpr std::string_view kSpace = " \t\r\n";

Error bad(const std::string& why) { return Error(Errc::kInvalidArgument, "read PEM: " + why); }

// What to do about the labels that people have at hand.
std::string advice(std::string_view found) {
  if (found == "ENCRYPTED SIGSTORE PRIVATE KEY" || found == "ENCRYPTED COSIGN PRIVATE KEY") {
    return "an encrypted cosign key cannot be used to sign; its public half can be trusted";
  }
  if (found == "ENCRYPTED PRIVATE KEY") {
    return "the key is encrypted; decrypt it with `openssl pkcs8 -in KEY -out PLAIN`";
  }
  if (found == "EC PRIVATE KEY") {
    return "the key is in the old EC format; convert it with `openssl pkcs8 -topk8 -nocrypt -in KEY -out PKCS8`";
  }
  if (found == "CERTIFICATE") {
    return "a certificate is no key; extract it with `openssl x509 -pubkey -noout`";
  }
  return {};
}

}  // namespace

Result<base::Bytes> read_pem(std::string_view pem, std::string_view label) {
  if (pem.size() > kMaxPemBytes) {
    return bad("longer than " + std::to_string(kMaxPemBytes) + " bytes");
  }
  constexpr std::string_view kBegin = "-----BEGIN ";
  constexpr std::string_view kDashes = "-----";
  const std::size_t start = pem.find_first_not_of(kSpace);
  if (start == std::string_view::npos || !pem.substr(start).starts_with(kBegin)) {
    return bad("does not begin with a PEM block");
  }
  std::string_view rest = pem.substr(start + kBegin.size());
  const std::size_t label_end = rest.find(kDashes);
  if (label_end == std::string_view::npos) {
    return bad("the first line is not complete");
  }
  const std::string_view found = rest.substr(0, label_end);
  if (found != label) {
    const std::string hint = advice(found);
    return bad(hint.empty() ? "the block is not a \"" + std::string(label) + "\"" : hint);
  }
  rest.remove_prefix(label_end + kDashes.size());
  const std::string end = "-----END " + std::string(label) + "-----";
  const std::size_t body_end = rest.find(end);
  if (body_end == std::string_view::npos) {
    return bad("the block has no end");
  }
  if (rest.substr(body_end + end.size()).find_first_not_of(kSpace) != std::string_view::npos) {
    return bad("something follows the block; one key per file");
  }
  std::string body(rest.substr(0, body_end));
  std::erase_if(body, [](char c) { return kSpace.find(c) != std::string_view::npos; });
  auto der = base::from_base64(body);
  OPENSSL_cleanse(body.data(), body.size());
  if (!der.ok()) {
    return bad("the body is not base64");
  }
  return der;
}

}  // namespace cellrund::crypto::ossl
