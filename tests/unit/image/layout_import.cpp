#include "image/layout_import.hpp"

#include <doctest/doctest.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/support/image_layout.hpp"
#include "tests/support/tar.hpp"

using namespace cellrund;
using namespace cellrund::image;
using namespace std::chrono_literals;
using test::layout;
using test::Tar;

namespace {

struct Archive {
  std::string path;
  explicit Archive(const std::string& bytes) {
    std::string name = "/tmp/cellrun-layout-test-XXXXXX";
    const base::UniqueFd fd(::mkstemp(name.data()));
    REQUIRE(fd.valid());
    path = name;
    REQUIRE(base::write_all(fd.get(), base::as_bytes(bytes)).ok());
  }
  Archive(const Archive&) = delete;
  ~Archive() { (void)base::remove_file(path); }
};

auto import(const Archive& archive, test::MemoryStore& store, const std::string& name = "") {
  auto result = import_layout({.path = archive.path, .repository = name}, store, base::Deadline::after(30s));
  CHECK(store.held == 0);
  return result;
}

}  // namespace

TEST_CASE("an image layout is stored with its references and named by digest") {
  for (const bool nested : {false, true}) {
    std::string manifest;
    const Archive archive(layout({.nested = nested}, &manifest));
    test::MemoryStore store;
    const auto images = import(archive, store);
    REQUIRE_MESSAGE(images.ok(), (images.ok() ? "" : images.error().message()));
    REQUIRE(images->size() == 1);
    const std::string digest = crypto::digest_text(base::as_bytes(manifest));
    CHECK(images->front().reference == "registry.example/tool@" + digest);
    CHECK(images->front().layers == 1);
    CHECK(store.blobs.size() == 3);
    CHECK(store.blobs[digest] == manifest);
    REQUIRE(store.images.contains(images->front().reference));
    CHECK(store.images[images->front().reference].target.media_type == test::kManifestType);
    const Labels& labels = store.labels[digest];
    REQUIRE(labels.size() == 2);
    CHECK(labels[0].first == "containerd.io/gc.ref.content.config");
    CHECK(labels[1].first == "containerd.io/gc.ref.content.l.0");
  }
}

TEST_CASE("a name may be given, and must be where the archive has only a tag") {
  test::MemoryStore store;
  const Archive tagged(layout({.name = "latest"}));
  const auto nameless = import(tagged, store);
  REQUIRE_FALSE(nameless.ok());
  CHECK(nameless.error().message().find("--name") != std::string::npos);
  const auto named = import(tagged, store, "registry.example/other:2");
  REQUIRE(named.ok());
  CHECK(named->front().reference.starts_with("registry.example/other@sha256:"));
  CHECK_FALSE(import(tagged, store, "not a name").ok());
  CHECK(import(Archive(layout({.name = "x/y:1", .key = "io.containerd.image.name"})), store)
            ->front()
            .reference.starts_with("x/y@"));
}

TEST_CASE("several names of one image become one record each") {
  test::MemoryStore store;
  const Archive archive(layout({.name = "registry.example/tool", .copies = 3}));
  const auto images = import(archive, store);
  REQUIRE(images.ok());
  CHECK(images->size() == 3);
  CHECK_FALSE(import(archive, store, "one/name").ok());
}

TEST_CASE("what does not hash, is missing or is for another machine is refused, and nothing is recorded") {
  test::MemoryStore store;
  const auto refused = [&](const std::string& bytes) {
    const auto result = import(Archive(bytes), store);
    REQUIRE_FALSE(result.ok());
    CHECK(store.images.empty());
    return result.error().message();
  };
  CHECK(refused(layout({.forged_layer = true})).find("digest") != std::string::npos);
  CHECK(refused(layout({.with_layer = false})).find("no blobs/sha256/") != std::string::npos);
  CHECK(refused(layout({.architecture = "arm64"})).find("linux/arm64") != std::string::npos);
  CHECK(refused("").find("import /tmp/") == 0);
  CHECK(refused(std::string(10000, 'x')).find("import") == 0);
  CHECK(refused(Tar().file("index.json", "{}").bytes()).find("no OCI image layout") != std::string::npos);
  CHECK(refused(Tar().file("oci-layout", R"({"imageLayoutVersion":"2"})").bytes()).find("imageLayoutVersion") !=
        std::string::npos);
  CHECK(refused(layout({}).substr(0, 2000)).find("import") == 0);
  const auto missing = import_layout({.path = "/nonexistent.tar"}, store, base::Deadline::after(1s));
  CHECK(missing.error().code() == base::Errc::kNotFound);
  CHECK_FALSE(import_layout({.path = "/tmp"}, store, base::Deadline::after(1s)).ok());
}
