#include <doctest/doctest.h>

#include <string>

#include "crypto/digest.hpp"
#include "crypto/dsse.hpp"
#include "evidence/outputs_manifest.hpp"
#include "evidence/statement.hpp"
#include "evidence/summary.hpp"
#include "evidence/verify.hpp"
#include "facts.hpp"

using namespace cellrund;
namespace json = base::json;
namespace test = evidence::test;

namespace {

model::Evidence with_outputs(std::size_t files) {
  model::Evidence facts = test::full();
  facts.outputs.emplace();
  for (std::size_t i = 0; i < files; ++i) {
    const std::string path = "d/\"f\\" + std::to_string(i);
    facts.outputs->files.push_back({path, i, crypto::digest_text(base::as_bytes(path))});
  }
  facts.outputs->refused = {{"link", "symbolic link"}};
  facts.outputs->refused_count = 3;
  facts.outputs->incomplete_because = "the archive ends before its end";
  facts.outputs->manifest_digest = evidence::outputs_manifest_digest(facts.outputs->files);
  return facts;
}

base::Result<evidence::Record, evidence::VerifyFailure> verify(const std::string& statement) {
  const std::string envelope = crypto::dsse::write(*crypto::dsse::sign(evidence::kPayloadType, base::as_bytes(statement), test::node_key()));
  return evidence::verify(base::as_bytes(envelope), test::node_key().public_key());
}

std::string replaced(std::string text, const std::string& what, const std::string& by) {
  const std::size_t at = text.find(what);
  REQUIRE(at != std::string::npos);
  return text.replace(at, what.size(), by);
}

}  // namespace

TEST_CASE("outputs are in the record, their manifest is its second subject, and a summary shows both") {
  const model::Evidence facts = with_outputs(3);
  const std::string text = json::write(evidence::statement(facts));
  CHECK(text.find(R"({"path":"link","why":"symbolic link"})") != std::string::npos);
  CHECK(text.find(R"("name":"outputs-manifest","digest":{"sha256":")" + facts.outputs->manifest_digest.substr(7)) != std::string::npos);
  const auto record = verify(text);
  REQUIRE(record.ok());
  const std::string summary = evidence::summary(*record);
  for (const char* part : {"3 files, 3 bytes", "3 refused", "link: symbolic link", "not all: the archive ends before its end"}) {
    CAPTURE(part);
    CHECK(summary.find(part) != std::string::npos);
  }
}

TEST_CASE("a record whose outputs are not those of its manifest does not verify") {
  const model::Evidence facts = with_outputs(3);
  const std::string text = json::write(evidence::statement(facts));
  const std::string digest = facts.outputs->manifest_digest.substr(7);
  const std::string other(64, '0');
  for (const std::string& wrong : {
           replaced(text, R"("size":2)", R"("size":3)"),
           replaced(text, "\"path\":\"d/", "\"path\":\"e/"),
           replaced(text, R"({"sha256":")" + digest, R"({"sha256":")" + other),
           replaced(replaced(text, digest, other), digest, other),
           replaced(text, "outputs-manifest", "something-else"),
           replaced(text, R"("files":3)", R"("files":2)"),
           replaced(text, R"("files":3)", R"("files":4)"),
           replaced(text, R"("outputsManifest":)", R"("outputsManifesto":)"),
           replaced(text, R"("outputs":)", R"("output":)"),
       }) {
    const auto record = verify(wrong);
    REQUIRE_FALSE(record.ok());
    CHECK(record.error().fault == evidence::Fault::kSubject);
  }
}

TEST_CASE("as many outputs as a job may have fit into a record, whole") {
  const model::Evidence facts = with_outputs(4096);
  const std::string text = json::write(evidence::statement(facts));
  CHECK(text.size() <= evidence::kMaxStatementBytes);
  CHECK(text.find("larger than a record may be") == std::string::npos);
  CHECK(verify(text).ok());
}
