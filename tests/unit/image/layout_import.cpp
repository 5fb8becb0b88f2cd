#include "image/layout_import.hpp"

#include <doctest/doctest.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>

#include "base/json.hpp"
#include "tests/support/image_store.hpp"
#include "tests/support/tar.hpp"

using namespace cellrund;
using namespace cellrund::image;
using namespace std::chrono_literals;
namespace json = base::json;
using test::Tar;

namespace {

struct LayoutOptions {
  std::string name = "registry.example/tool:1.0";
  std::string key = "org.opencontainers.image.ref.name";
  std::string architecture = "amd64";
  bool with_layer = true;
  bool forged_layer = false;
  bool nested = false;
  int copies = 1;
};

std::string blob_name(const std::string& bytes) {
  return "blobs/sha256/" + crypto::digest_text(base::as_bytes(bytes)).substr(7);
}

std::string layout(const LayoutOptions& options, std::string* manifest_out = nullptr) {
  Tar out;
  out.file("oci-layout", R"({"imageLayoutVersion":"1.0.0"})");
  out.folder("blobs").folder("blobs/sha256");
  const std::string layer = Tar().file("hello", "world").bytes();
  const std::string config = json::write(json::Object{
      {"os", "linux"},
      {"architecture", options.architecture},
      {"rootfs", json::Object{{"type", "layers"},
                              {"diff_ids", json::Array{crypto::digest_text(base::as_bytes(layer))}}}}});
  const std::string manifest =
      json::write(json::Object{{"schemaVersion", 2},
                               {"mediaType", test::kManifestType},
                               {"config", test::descriptor(test::kConfigType, config)},
                               {"layers", json::Array{test::descriptor(test::kTarType, layer)}}});
  json::Array entries;
  for (int i = 0; i < options.copies; ++i) {
    json::Object entry = test::descriptor(test::kManifestType, manifest);
    if (!options.name.empty() && !options.nested) {
      entry.set("annotations", json::Object{{options.key, options.name + (i == 0 ? "" : std::to_string(i))}});
    }
    entries.emplace_back(std::move(entry));
  }
  std::string index = json::write(json::Object{{"schemaVersion", 2}, {"manifests", std::move(entries)}});
  if (options.nested) {
    out.file(blob_name(index), index);
    json::Object entry = test::descriptor("application/vnd.oci.image.index.v1+json", index);
    entry.set("annotations", json::Object{{options.key, options.name}});
    index = json::write(json::Object{{"schemaVersion", 2}, {"manifests", json::Array{std::move(entry)}}});
  }
  out.file(blob_name(manifest), manifest).file(blob_name(config), config);
  if (options.with_layer) {
    out.file(blob_name(layer), options.forged_layer ? std::string(layer.size(), 'x') : layer);
  }
  out.file("index.json", index);
  if (manifest_out != nullptr) {
    *manifest_out = manifest;
  }
  return out.bytes();
}

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
  CHECK(import(Archive(layout({.name = "x/y:1", .key = "io.containerd.image.name"})), store)->front().reference.starts_with("x/y@"));
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
  CHECK(refused(Tar().file("oci-layout", R"({"imageLayoutVersion":"2"})").bytes()).find("imageLayoutVersion") != std::string::npos);
  CHECK(refused(layout({}).substr(0, 2000)).find("import") == 0);
  const auto missing = import_layout({.path = "/nonexistent.tar"}, store, base::Deadline::after(1s));
  CHECK(missing.error().code() == base::Errc::kNotFound);
  CHECK_FALSE(import_layout({.path = "/tmp"}, store, base::Deadline::after(1s)).ok());
}
