#include "evidence/verify.hpp"

#include <doctest/doctest.h>

#include <string>

#include "crypto/digest.hpp"
#include "crypto/dsse.hpp"
#include "evidence/statement.hpp"
#include "facts.hpp"

using namespace cellrund;
using evidence::Fault;
namespace json = base::json;
namespace test = evidence::test;

namespace {

const crypto::PublicKey& key() { return test::node_key().public_key(); }

std::string sealed() {
  auto out = evidence::seal(test::full(), test::node_key());
  REQUIRE(out.ok());
  return out->envelope;
}

Fault fault_of(const std::string& text, std::string_view spec_digest = {}) {
  const auto record = evidence::verify(base::as_bytes(text), key(), spec_digest);
  REQUIRE_FALSE(record.ok());
  CHECK_FALSE(record.error().message.empty());
  return record.error().fault;
}

// Any text, honestly signed by the node key.
std::string signed_text(const std::string& payload, std::string_view type = evidence::kPayloadType) {
  return crypto::dsse::write(*crypto::dsse::sign(type, base::as_bytes(payload), test::node_key()));
}

std::string statement_with(const char* what, const std::string& by) {
  std::string text = json::write(evidence::statement(test::full()));
  const std::size_t at = text.find(what);
  REQUIRE(at != std::string::npos);
  return text.replace(at, std::string(what).size(), by);
}

}  // namespace

TEST_CASE("a sealed record verifies, also with the newline of an export") {
  for (const std::string& text : {sealed(), sealed() + "\n"}) {
    const auto record = evidence::verify(base::as_bytes(text), key(), "sha256:" + std::string(64, 'a'));
    REQUIRE(record.ok());
    CHECK(record->key_id == key().key_id());
    CHECK(record->spec_digest == "sha256:" + std::string(64, 'a'));
    CHECK(record->digest == crypto::digest_text(base::as_bytes(sealed())));
  }
}

TEST_CASE("no flipped byte goes unnoticed") {
  const std::string good = sealed();
  const std::size_t payload_end = good.find("\",\"payloadType\"");
  REQUIRE(payload_end != std::string::npos);
  for (std::size_t i = 0; i < good.size(); ++i) {
    // One bit of each byte of the payload, which the signature covers as a whole; every bit of what stands around it.
    for (std::size_t bit = i < payload_end ? i % 8 : 0; bit < 8; bit += i < payload_end ? 8 : 1) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ (1 << bit));
      if (evidence::verify(base::as_bytes(bad), key()).ok()) {
        FAIL("accepted with bit " << bit << " of byte " << i << " flipped");
      }
    }
  }
}

TEST_CASE("no missing and no added byte goes unnoticed") {
  const std::string good = sealed();
  for (std::size_t i = 0; i < good.size(); i += 97) {
    CHECK_FALSE(evidence::verify(base::as_bytes(good.substr(0, i)), key()).ok());
    CHECK_FALSE(evidence::verify(base::as_bytes(std::string(good).erase(i, 1)), key()).ok());
    CHECK_FALSE(evidence::verify(base::as_bytes(std::string(good).insert(i, " ")), key()).ok());
  }
  CHECK_FALSE(evidence::verify(base::as_bytes(good + "\n\n"), key()).ok());
}

TEST_CASE("each kind of fault has its name") {
  CHECK(fault_of("") == Fault::kMalformed);
  CHECK(fault_of("{}") == Fault::kMalformed);
  CHECK(fault_of(" " + sealed()) == Fault::kMalformed);
  CHECK(fault_of(signed_text("{}", "application/vnd.cellrun.jobspec.v1+json")) == Fault::kWrongType);
  CHECK(fault_of(signed_text("{}")) == Fault::kMalformed);
  CHECK(fault_of(signed_text("not json")) == Fault::kMalformed);
  CHECK(fault_of(signed_text(statement_with("Statement/v1", "Statement/v2"))) == Fault::kUnknownVersion);
  CHECK(fault_of(signed_text(statement_with("job/v1\"", "job/v2\""))) == Fault::kUnknownVersion);
  CHECK(fault_of(signed_text(statement_with("job/v1\"", "job/v10\""))) == Fault::kUnknownVersion);
  CHECK(fault_of(signed_text(statement_with("job/v1\"", "job/v1.x\""))) == Fault::kUnknownVersion);
  CHECK(evidence::verify(base::as_bytes(signed_text(statement_with("job/v1\"", "job/v1.7\""))), key()).ok());
  CHECK(fault_of(signed_text(statement_with("\"specDigest\":\"sha256:aaaa", "\"specDigest\":\"sha256:bbbb"))) == Fault::kSubject);
  CHECK(fault_of(signed_text(statement_with("\"name\":\"jobspec\"", "\"name\":\"predicate\""))) == Fault::kSubject);
  CHECK(fault_of(signed_text(statement_with("\"keyId\":\"8", "\"keyId\":\"9"))) == Fault::kWrongKey);
  CHECK(fault_of(sealed(), "sha256:" + std::string(64, '0')) == Fault::kSubject);

  const auto other = crypto::PrivateKey::generate();
  const auto record = evidence::verify(base::as_bytes(sealed()), other->public_key());
  REQUIRE_FALSE(record.ok());
  CHECK(record.error().fault == Fault::kWrongKey);

  auto forged = crypto::dsse::sign(evidence::kPayloadType, base::as_bytes(json::write(evidence::statement(test::full()))), *other);
  forged->signatures[0].keyid = key().key_id();
  CHECK(fault_of(crypto::dsse::write(*forged)) == Fault::kSignature);
  forged->signatures.clear();
  CHECK(fault_of(crypto::dsse::write(*forged)) == Fault::kMalformed);
}
