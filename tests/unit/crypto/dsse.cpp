#include "crypto/dsse.hpp"

#include <doctest/doctest.h>

#include <string>

#include "base/hex.hpp"
#include "base/json.hpp"

using namespace cellrund;
namespace dsse = crypto::dsse;

namespace {

dsse::Envelope signed_by(const crypto::PrivateKey& key, std::string_view payload) {
  auto envelope = dsse::sign("text/plain", base::as_bytes(payload), key);
  REQUIRE(envelope.ok());
  return std::move(*envelope);
}

bool parses(const std::string& text, const dsse::Limits& limits = {}) { return dsse::parse(base::as_bytes(text), limits).ok(); }

}  // namespace

TEST_CASE("the pre-authentication encoding is that of the DSSE protocol") {
  CHECK(base::as_text(dsse::pae("http://example.com/HelloWorld", base::as_bytes("hello world"))) ==
        "DSSEv1 29 http://example.com/HelloWorld 11 hello world");
  CHECK(base::as_text(dsse::pae("", {})) == "DSSEv1 0  0 ");
}

TEST_CASE("the signature of the DSSE protocol document verifies") {
  auto x_y = base::from_hex("3059301306072a8648ce3d020106082a8648ce3d030107034200"
                            "0467cd390f77aa359cb08c2235f652270493a9ed832b0abcc01f70954c0390d238"
                            "0c782bd54e269125a44f4433aff1432ce94e12bca73aa67ac80cea12608ddf74");
  const auto key = crypto::PublicKey::from_der(*x_y);
  REQUIRE(key.ok());
  // The document gives r || s; here they are as DER.
  auto signature = base::from_hex("3044022003726ab101ad56c2763b6c6aac8e487275e2a79193a09dc5f859d9f8ef3c4a3b"
                                  "022051eab0c06a369b64a7222537d4887a893dc200ae21060074d57825235b624864");
  CHECK(key->verify(dsse::pae("http://example.com/HelloWorld", base::as_bytes("hello world")), *signature));
}

TEST_CASE("an envelope survives writing and reading") {
  const auto key = crypto::PrivateKey::generate(crypto::Algorithm::kEcdsaP256);
  const auto envelope = signed_by(*key, "payload \xc3\xa9");
  const auto again = dsse::parse(base::as_bytes(dsse::write(envelope)), {});
  REQUIRE(again.ok());
  CHECK(base::as_text(again->payload) == "payload \xc3\xa9");
  CHECK(again->payload_type == "text/plain");
  CHECK(dsse::verifies(*again, key->public_key()));
  CHECK(dsse::write(*again) == dsse::write(envelope));
}

TEST_CASE("type, payload and key are bound by the signature; keyid is not") {
  const auto key = crypto::PrivateKey::generate();
  const auto other = crypto::PrivateKey::generate();
  auto envelope = signed_by(*key, "payload");
  CHECK_FALSE(dsse::verifies(envelope, other->public_key()));
  envelope.signatures[0].keyid = other->public_key().key_id();
  CHECK(dsse::verifies(envelope, key->public_key()));
  CHECK_FALSE(dsse::verifies(envelope, other->public_key()));
  envelope.payload_type = "text/plaim";
  CHECK_FALSE(dsse::verifies(envelope, key->public_key()));
  envelope.payload_type = "text/plain";
  envelope.payload.push_back('\n');
  CHECK_FALSE(dsse::verifies(envelope, key->public_key()));
}

TEST_CASE("envelopes are read strictly") {
  const std::string sig = R"({"sig":"AAAA"})";
  const auto with = [&](const std::string& signatures) {
    return R"({"payload":"aGk=","payloadType":"t","signatures":[)" + signatures + "]}";
  };
  CHECK(parses(with("")));
  CHECK(parses(with(sig)));
  CHECK(parses(with(R"({"keyid":"","sig":"AAAA"})")));
  CHECK(parses(R"({"signatures":[],"payload":"-_8","payloadType":"t"})"));  // URL-safe, as DSSE allows
  for (const std::string& bad : {
           std::string(), std::string("[]"), std::string("{}"), std::string("null"),
           std::string(R"({"payload":"aGk=","payloadType":"t"})"),
           std::string(R"({"payload":"aGk=","signatures":[]})"),
           std::string(R"({"payloadType":"t","signatures":[]})"),
           std::string(R"({"payload":"aGk","payloadType":"t","signatures":[]})"),
           std::string(R"({"payload":"aGl=","payloadType":"t","signatures":[]})"),
           std::string(R"({"payload":"aGk =","payloadType":"t","signatures":[]})"),
           std::string(R"({"payload":1,"payloadType":"t","signatures":[]})"),
           std::string(R"({"payload":"aGk=","payloadType":null,"signatures":[]})"),
           std::string(R"({"payload":"aGk=","payloadType":"t","signatures":{}})"),
           std::string(R"({"payload":"aGk=","payload":"aGk=","payloadType":"t","signatures":[]})"),
           std::string(R"({"payload":"aGk=","payloadType":"t","signatures":[],"alg":"none"})"),
           with(R"("AAAA")"), with("{}"), with(R"({"sig":""},{"sig":1})"), with(R"({"sig":"AAAA","cert":"x"})"),
           with(R"({"sig":"AAAA","keyid":7})"), with(R"({"sig":"A"})"), with(R"({"sig":")" + std::string(1024, 'A') + R"("})"),
           with(R"({"sig":"AAAA","keyid":")" + std::string(300, 'k') + R"("})"),
           with(sig + "," + sig + "," + sig + "," + sig + "," + sig + "," + sig + "," + sig + "," + sig + "," + sig),
           with(sig) + "{}", with(sig) + "x"}) {
    CAPTURE(bad);
    CHECK_FALSE(parses(bad));
  }
}

TEST_CASE("a payload at the limit is read, one byte more is not") {
  const std::string at_limit = base::to_base64(base::Bytes(256UL * 1024, 'a'));
  const std::string above = base::to_base64(base::Bytes(256UL * 1024 + 1, 'a'));
  CHECK(parses(R"({"payload":")" + at_limit + R"(","payloadType":"t","signatures":[]})"));
  CHECK_FALSE(parses(R"({"payload":")" + above + R"(","payloadType":"t","signatures":[]})"));
  CHECK_FALSE(parses(std::string(100UL << 20U, ' ')));
}

TEST_CASE("no flipped bit of the signed parts verifies") {
  const auto key = crypto::PrivateKey::generate();
  const std::string text = dsse::write(signed_by(*key, "the quick brown fox"));
  std::size_t accepted = 0;
  for (std::size_t i = 0; i < text.size() * 8; ++i) {
    std::string flipped = text;
    flipped[i / 8] = static_cast<char>(flipped[i / 8] ^ (1 << (i % 8)));
    const auto envelope = dsse::parse(base::as_bytes(flipped), {});
    if (envelope.ok() && dsse::verifies(*envelope, key->public_key())) {
      ++accepted;
      CHECK(envelope->signatures[0].keyid != key->public_key().key_id());  // the hint is all that may differ
    }
  }
  CHECK(accepted > 0);
}
