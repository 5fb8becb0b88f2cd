#include <doctest/doctest.h>

#include "containerd/client.hpp"
#include "fake_content.hpp"

namespace {

// Not "using namespace cellrund": ::containerd holds the generated code.
namespace base = cellrund::base;
namespace containerd = cellrund::containerd;
namespace test = cellrund::test;
using namespace std::chrono_literals;
using base::Errc;

const std::string kDigest = "sha256:" + std::string(64, 'a');

base::Deadline soon() {
  return base::Deadline::after(20s);
}

struct Setup {
  explicit Setup(std::size_t size) : bytes(size, 'b') {
    server.state()->expected_bytes = bytes;
    auto made = containerd::Client::create(server.socket, "cellrun-test");
    REQUIRE(made.ok());
    client = std::make_unique<containerd::Client>(std::move(*made));
  }
  base::Status ingest(const containerd::Labels& labels = {}) {
    const containerd::BlobReader reader = [this](std::uint64_t offset,
                                                 std::span<std::uint8_t> out) -> base::Result<std::size_t> {
      lowest_read = std::min(lowest_read, offset);
      const std::size_t n = std::min<std::size_t>(out.size(), bytes.size() - offset);
      std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(offset), n, out.begin());
      return n;
    };
    return client->ingest(kDigest, announced == 0 ? bytes.size() : announced, reader, labels,
                          containerd::Call(soon(), "lease-7"));
  }
  test::FakeContent server;
  std::string bytes;
  std::uint64_t announced = 0;
  std::uint64_t lowest_read = ~0ULL;
  std::unique_ptr<containerd::Client> client;
};

TEST_CASE("a blob goes in pieces of at most a mebibyte, under namespace and lease") {
  Setup s((3U << 20U) + 5);
  REQUIRE(s.ingest({{"containerd.io/gc.ref.content.config", "x"}}).ok());
  auto state = s.server.state();
  CHECK(state->blobs.at(kDigest) == s.bytes);
  CHECK(state->labels.at(kDigest).at("containerd.io/gc.ref.content.config") == "x");
  CHECK(state->largest_write == 1U << 20U);
  CHECK(state->seen_namespace == "cellrun-test");
  CHECK(state->seen_lease == "lease-7");
}

TEST_CASE("an empty blob is a commit without a write") {
  Setup s(0);
  REQUIRE(s.ingest().ok());
  CHECK(s.server.state()->blobs.count(kDigest) == 1);
}

TEST_CASE("one answer to a commit is as good as two") {
  Setup s(10);
  s.server.state()->commit_answers = 1;
  CHECK(s.ingest().ok());
}

TEST_CASE("a blob that is there is not sent again, but gets its labels") {
  Setup s(100);
  s.server.state()->blobs[kDigest] = s.bytes;
  REQUIRE(s.ingest({{"a.b", "c"}}).ok());
  CHECK(s.lowest_read == ~0ULL);
  CHECK(s.server.state()->labels.at(kDigest).at("a.b") == "c");
}

TEST_CASE("a blob that is there with another size is not what was announced") {
  Setup s(100);
  s.server.state()->blobs[kDigest] = "short";
  CHECK(s.ingest().error().code() == Errc::kDataLoss);
}

TEST_CASE("an upload goes on where an earlier one broke off") {
  Setup s(100);
  s.server.state()->partial["cellrun-" + kDigest] = s.bytes.substr(0, 60);
  REQUIRE(s.ingest().ok());
  CHECK(s.lowest_read == 60);
}

TEST_CASE("an earlier upload of other bytes is thrown away and ours gets its own chance") {
  Setup s(100);
  SUBCASE("shorter") {
    s.server.state()->partial["cellrun-" + kDigest] = "evil";
  }
  SUBCASE("longer") {
    s.server.state()->partial["cellrun-" + kDigest] = std::string(200, 'e');
  }
  REQUIRE(s.ingest().ok());
  CHECK(s.server.state()->aborts == 1);
  CHECK(s.server.state()->blobs.at(kDigest) == s.bytes);
}

TEST_CASE("bytes that do not match are refused once and for all, and nothing of them stays") {
  Setup s(100);
  s.server.state()->expected_bytes = "something else";
  CHECK(s.ingest().error().code() == Errc::kDataLoss);
  CHECK(s.server.state()->aborts == 1);
  CHECK(s.server.state()->partial.empty());
}

TEST_CASE("a source that ends early is an error") {
  Setup s(100);
  s.announced = 150;
  CHECK(s.ingest().error().code() == Errc::kDataLoss);
}

TEST_CASE("a reference that another writer holds is waited for") {
  Setup s(100);
  s.server.state()->locked_times = 2;
  CHECK(s.ingest().ok());
}

TEST_CASE("a server that counts differently is not believed") {
  Setup s(100);
  s.server.state()->lies_about_offset = true;
  const auto ingested = s.ingest();
  CHECK_FALSE(ingested.ok());
  CHECK(s.server.state()->blobs.empty());
}

TEST_CASE("reading is bounded and in order") {
  Setup s(100);
  s.server.state()->blobs[kDigest] = s.bytes;
  const auto whole = s.client->read_blob_text(kDigest, 100, soon());
  CHECK((whole.ok() && *whole == s.bytes));
  CHECK(s.client->read_blob_text(kDigest, 99, soon()).error().code() == Errc::kResourceExhausted);
  s.server.state()->read_out_of_order = true;
  CHECK(s.client->read_blob_text(kDigest, 100, soon()).error().code() == Errc::kDataLoss);
}

TEST_CASE("an error carries its code, and the server's text only quoted") {
  Setup s(1);
  const auto info = s.client->blob_info(kDigest, soon());
  CHECK(info.error().code() == Errc::kNotFound);
  CHECK(info.error().message().find("Content.Info " + kDigest) != std::string::npos);
  CHECK(info.error().message().find('\x1b') == std::string::npos);
}

TEST_CASE("a passed deadline, an absent server and a shut down client are told apart") {
  Setup s(1);
  CHECK(s.client->blob_info(kDigest, base::Deadline::after(0s)).error().code() == Errc::kDeadlineExceeded);
  auto absent = containerd::Client::create("/nonexistent/c.sock", "n");
  REQUIRE(absent.ok());
  CHECK(absent->blob_info(kDigest, soon()).error().code() == Errc::kUnavailable);
  CHECK_FALSE(absent->wait_ready(base::Deadline::after(300ms)).ok());
  s.client->shutdown();
  CHECK(s.client->blob_info(kDigest, soon()).error().code() == Errc::kCancelled);
}

TEST_CASE("socket and namespace are checked before anything is dialled") {
  using containerd::Client;
  CHECK_FALSE(Client::create("relative.sock", "n").ok());
  CHECK_FALSE(Client::create("/" + std::string(108, 'x'), "n").ok());
  for (const char* bad : {"", "-a", "a-", "a b", "a/b", "a\n"}) {
    CHECK_FALSE(Client::create("/run/c.sock", bad).ok());
  }
  CHECK(Client::create("/run/c.sock", "cellrun-1.x_y").ok());
}

TEST_CASE("the shim's options name their configuration as runtimeoptions.v1 encodes it") {
  const auto options = containerd::shim_options("/etc/x");
  CHECK(options.type_url == "runtimeoptions.v1.Options");
  CHECK(options.value == "\x12\x06/etc/x");
  const std::string longer(300, 'p');
  CHECK(containerd::shim_options(longer).value == "\x12\xac\x02" + longer);
}

}  // namespace
