#include <doctest/doctest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "base/file.hpp"
#include "cell/expiry.hpp"
#include "cell/log_store.hpp"
#include "cell/output_store.hpp"
#include "crypto/digest.hpp"

using namespace cellrund;
using namespace cellrund::cell;

namespace {

struct Folder {
  std::string path = "/tmp/cellrun-outputs-XXXXXX";
  Folder() { REQUIRE(::mkdtemp(path.data()) != nullptr); }
  Folder(const Folder&) = delete;
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
};

unsigned mode_of(const std::string& path) {
  struct stat st {};
  REQUIRE(::stat(path.c_str(), &st) == 0);
  return st.st_mode & 07777U;
}

// Two outputs, "ab" and "cde", as a collector leaves them.
model::OutputFacts store_two(const std::string& folder) {
  const auto data = create_outputs(folder, 1 << 20);
  REQUIRE(data.ok());
  REQUIRE(base::write_all(data->get(), base::as_bytes("abcde")).ok());
  model::OutputFacts facts;
  facts.files = {{"a", 2, crypto::digest_text(base::as_bytes("ab"))}, {"d/c", 3, crypto::digest_text(base::as_bytes("cde"))}};
  facts.refused = {{"link", "symbolic link"}};
  facts.refused_count = 5;
  REQUIRE(store_outputs(folder, data->get(), facts).ok());
  return facts;
}

}  // namespace

TEST_CASE("stored outputs come back as they went, for root alone, and nothing of them can be run") {
  const Folder state;
  const std::string folder = job_folder(state.path, "u");
  const model::OutputFacts stored = store_two(folder);
  CHECK(mode_of(folder) == 0700);
  for (const char* name : {"/outputs", "/outputs.json", "/manifest.json"}) {
    CHECK(mode_of(folder + name) == 0600);
  }
  const auto read = read_outputs(folder);
  REQUIRE(read.ok());
  CHECK(read->files.size() == 2);
  CHECK(read->refused_count == 5);
  CHECK(read->manifest_digest == stored.manifest_digest);
  CHECK(crypto::digest_text(base::as_bytes(*base::read_file(folder + "/manifest.json", 4096))) == stored.manifest_digest);
  const auto source = open_output(folder, "d/c");
  REQUIRE(source.ok());
  CHECK(source->offset == 2);
  CHECK(source->file.size == 3);
  CHECK(open_output(folder, "../manifest.json").error().code() == base::Errc::kNotFound);
  CHECK(open_output(folder, "").error().code() == base::Errc::kNotFound);
  CHECK_FALSE(create_outputs(folder, 1 << 20).ok());  // never over what is there
}

TEST_CASE("data that is not as long as its list says is not stored") {
  const Folder state;
  const std::string folder = job_folder(state.path, "u");
  const auto data = create_outputs(folder, 1 << 20);
  REQUIRE(data.ok());
  REQUIRE(base::write_all(data->get(), base::as_bytes("abc")).ok());
  model::OutputFacts facts;
  facts.files = {{"a", 2, crypto::digest_text(base::as_bytes("ab"))}};
  CHECK(store_outputs(folder, data->get(), facts).error().code() == base::Errc::kDataLoss);
  CHECK(read_outputs(folder).error().code() == base::Errc::kNotFound);
}

TEST_CASE("logs and outputs of a job go when its ttl is over, and not before") {
  const Folder state;
  REQUIRE(LogStore::create(log_folder(state.path, "short"), 1000).ok());
  REQUIRE(LogStore::create(log_folder(state.path, "long"), 1000).ok());
  (void)store_two(job_folder(state.path, "short"));
  (void)store_two(job_folder(state.path, "long"));
  Expiry expiry(state.path);
  REQUIRE(expiry.keep_ttl("short", std::chrono::seconds(10)).ok());
  CHECK(read_ttl(job_folder(state.path, "short")) == std::chrono::seconds(10));
  CHECK(read_ttl(job_folder(state.path, "long")) == std::chrono::seconds(86400));
  expiry.closed("short", {1000, 0}, std::chrono::seconds(10));
  expiry.closed("long", {1000, 0}, std::chrono::seconds(86400));
  CHECK(expiry.until_next({1004, 0}) == std::chrono::seconds(6));
  expiry.remove_due({1009, 0});
  CHECK(base::exists(job_folder(state.path, "short")));
  expiry.remove_due({1010, 0});
  CHECK_FALSE(base::exists(job_folder(state.path, "short")));
  CHECK_FALSE(base::exists(log_folder(state.path, "short")));
  CHECK(base::exists(job_folder(state.path, "long")));
  CHECK(base::exists(log_folder(state.path, "long")));
  CHECK(expiry.until_next({1010, 0}) == std::chrono::hours(1));
}

TEST_CASE("a result tells how the job ended and what it left") {
  const Folder state;
  const std::string folder = job_folder(state.path, "u");
  model::Evidence evidence;
  evidence.request.uid = "u";
  evidence.outcome.state = model::State::kFailed;
  evidence.outcome.reason = model::Reason::kError;
  evidence.outcome.exit_code = 3;
  evidence.outputs = store_two(folder);
  REQUIRE(write_result(folder, evidence, "sha256:ee").ok());
  const std::string text = *base::read_file(folder + "/result.json", 65536);
  for (const char* part : {R"("state": "FAILED")", R"("reason": "Error")", R"("exitCode": 3)", R"("path": "d/c")", R"("evidenceDigest": "sha256:ee")"}) {
    CHECK(text.find(part) != std::string::npos);
  }
  CHECK(mode_of(folder + "/result.json") == 0600);
}
