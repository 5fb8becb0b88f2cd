// The preparer with its real box: hostile layers in, an EROFS file out. Needs root, user namespaces and mkfs.erofs.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

#include "base/file.hpp"
#include "base/process.hpp"
#include "image/preparer.hpp"
#include "image/rootfs_cache.hpp"
#include "image/store.hpp"
#include "tests/support/image_store.hpp"
#include "tests/support/tar.hpp"

using namespace cellrund;
using namespace std::chrono_literals;
using test::Tar;

namespace {

const std::string kRepository = "registry.example/agents/tool";

struct Folder {
  std::string path;
  Folder() {
    std::string name = "/tmp/cellrun-image-test-XXXXXX";
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path = name;
  }
  Folder(const Folder&) = delete;
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
};

image::PreparerOptions options(const Folder& folder) {
  image::PreparerOptions out;
  out.images_dir = folder.path + "/images";
  out.unpack_program = CELLRUN_UNPACK;
  out.max_image_bytes = 64ULL << 20U;
  out.max_entries = 10'000;
  return out;
}

std::string base_layer() {
  return Tar()
      .folder("./")
      .folder("bin")
      .file("bin/tool", "#!/bin/sh\n", 04755)
      .folder("etc")
      .file("etc/passwd", "root:x:0:0::/:/bin/sh\n")
      .file("etc/shadow", "secret", 0600)
      .symlink("lib", "usr/lib")
      .hardlink("etc/passwd-", "etc/passwd")
      .add({.name = "home/user", .type = '5', .mode = 0700, .uid = 1000, .gid = 65535})
      .bytes();
}

std::string top_layer() {
  return Tar().file("etc/.wh.shadow", "").file("etc/new", "new").folder("var").file("var/.wh..wh..opq", "").bytes();
}

// What a script prints in a mount namespace of its own where the image is mounted on /mnt.
std::string in_image(const model::PreparedImage& image, const std::string& script) {
  const auto result = base::run_command(
      {.argv = {"/usr/bin/unshare", "-m", "/bin/sh", "-c",
                "mount -t erofs -o loop,ro '" + image.rootfs_path() + "' /mnt && cd /mnt && " + script},
       .env = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}},
      "", base::Deadline::after(20s));
  REQUIRE(result.ok());
  CHECK_MESSAGE(result->exit.value == 0, result->err);
  return result->out;
}

}  // namespace

TEST_CASE("an image becomes one EROFS file with real owners, modes and links, the same every time") {
  const Folder folder;
  test::MemoryStore store;
  const std::string digest = test::add_image(store, kRepository, {base_layer(), top_layer()});
  auto preparer = image::Preparer::create(options(folder));
  REQUIRE(preparer.ok());
  const model::ImageRef ref{kRepository, digest};
  auto first = (*preparer)->prepare(ref, store, base::Deadline::after(60s));
  REQUIRE_MESSAGE(first.ok(), (first.ok() ? "" : first.error().message));
  CHECK(first->config().entrypoint == std::vector<std::string>{"/bin/tool"});
  CHECK(in_image(*first, "find . | sort") ==
        ".\n./bin\n./bin/tool\n./etc\n./etc/new\n./etc/passwd\n./etc/passwd-\n./home\n./home/user\n./lib\n./var\n");
  CHECK(in_image(*first, "stat -c '%n %a %u:%g %h' bin/tool home/user etc/passwd && readlink lib && cat etc/new") ==
        "bin/tool 4755 0:0 1\nhome/user 700 1000:65535 2\netc/passwd 644 0:0 2\nusr/lib\nnew");
  struct stat st {};
  REQUIRE(::stat(first->rootfs_path().c_str(), &st) == 0);
  CHECK(st.st_uid == 0);
  CHECK((st.st_mode & 07777U) == 0400);

  // A second node makes the same bytes of the same layers.
  const Folder other;
  auto second_preparer = image::Preparer::create(options(other));
  REQUIRE(second_preparer.ok());
  auto second = (*second_preparer)->prepare(ref, store, base::Deadline::after(60s));
  REQUIRE(second.ok());
  CHECK(second->rootfs_digest() == first->rootfs_digest());
}

TEST_CASE("a prepared image is used again, and made again when its file was damaged") {
  const Folder folder;
  test::MemoryStore store;
  const std::string digest = test::add_image(store, kRepository, {base_layer()});
  const model::ImageRef ref{kRepository, digest};
  auto preparer = image::Preparer::create(options(folder));
  REQUIRE(preparer.ok());
  REQUIRE((*preparer)->prepare(ref, store, base::Deadline::after(60s)).ok());
  struct stat before {};
  const std::string file = image::rootfs_file(folder.path + "/images", digest);
  REQUIRE(::stat(file.c_str(), &before) == 0);
  store.blobs.clear();  // not needed any more
  store.lookups = 0;
  REQUIRE((*preparer)->prepare(ref, store, base::Deadline::after(60s)).ok());
  CHECK(store.lookups == 0);

  // Another name for the same digest needs a record of its own.
  auto unknown = (*preparer)->prepare({"registry.example/other", digest}, store, base::Deadline::after(60s));
  REQUIRE_FALSE(unknown.ok());
  CHECK(unknown.error().reason == model::Reason::kImageNotFound);

  test::add_image(store, kRepository, {base_layer()});
  {
    const auto fd = base::open_file(file, O_WRONLY);
    REQUIRE(fd.ok());
    REQUIRE(::pwrite(fd->get(), "X", 1, 2000) == 1);
  }
  auto again = image::Preparer::create(options(folder));
  REQUIRE(again.ok());
  REQUIRE((*again)->prepare(ref, store, base::Deadline::after(60s)).ok());
  struct stat after {};
  REQUIRE(::stat(file.c_str(), &after) == 0);
  CHECK(after.st_ino != before.st_ino);
}

TEST_CASE("jobs that want one image at the same time share the work") {
  const Folder folder;
  test::MemoryStore store;
  const model::ImageRef ref{kRepository, test::add_image(store, kRepository, {base_layer()})};
  auto preparer = image::Preparer::create(options(folder));
  REQUIRE(preparer.ok());
  std::array<bool, 4> good{};
  {
    std::vector<std::jthread> threads;
    for (bool& result : good) {
      threads.emplace_back([&] { result = (*preparer)->prepare(ref, store, base::Deadline::after(60s)).ok(); });
    }
  }
  CHECK(good == std::array<bool, 4>{true, true, true, true});
  CHECK(store.lookups == 1);
}

TEST_CASE("bad images fail with their reason and leave nothing behind") {
  const Folder folder;
  test::MemoryStore store;
  auto preparer = image::Preparer::create(options(folder));
  REQUIRE(preparer.ok());
  const auto reason_of = [&](const std::string& digest) {
    auto result = (*preparer)->prepare({kRepository, digest}, store, base::Deadline::after(60s));
    REQUIRE_FALSE(result.ok());
    MESSAGE(result.error().message);
    return result.error().reason;
  };
  CHECK(reason_of("sha256:" + std::string(64, '0')) == model::Reason::kImageNotFound);
  CHECK(reason_of(test::add_image(store, kRepository, {})) == model::Reason::kImageInvalid);
  CHECK(reason_of(test::add_image(store, kRepository, {Tar().file("../x", "").bytes()})) ==
        model::Reason::kImageInvalid);
  CHECK(reason_of(test::add_image(store, kRepository, {Tar().file("a", "b").unfinished().substr(0, 700)})) ==
        model::Reason::kImageInvalid);
  CHECK(
      reason_of(test::add_image(store, kRepository, {Tar().add({.name = "z", .size_field = "77777777777"}).bytes()})) ==
      model::Reason::kImageInvalid);

  const std::string swapped = test::add_image(store, kRepository, {Tar().file("swapped", "1").bytes()});
  store.blobs[crypto::digest_text(base::as_bytes(Tar().file("swapped", "1").bytes()))] =
      Tar().file("swapped", "2").bytes();
  CHECK(reason_of(swapped) == model::Reason::kImageDigestMismatch);

  const std::string forged = test::add_image(store, kRepository, {Tar().file("forged", "1").bytes()});
  store.blobs[forged] += " ";
  CHECK(reason_of(forged) == model::Reason::kImageDigestMismatch);

  // The layer is what its digest says, and its config lies about the diffID.
  const std::string layer = Tar().file("liar", "1").bytes();
  const std::string config = base::json::write(base::json::Object{
      {"os", "linux"},
      {"architecture", "amd64"},
      {"rootfs",
       base::json::Object{{"type", "layers"}, {"diff_ids", base::json::Array{"sha256:" + std::string(64, '1')}}}}});
  store.add(layer);
  store.add(config);
  const std::string manifest =
      base::json::write(base::json::Object{{"schemaVersion", 2},
                                           {"config", test::descriptor(test::kConfigType, config)},
                                           {"layers", base::json::Array{test::descriptor(test::kTarType, layer)}}});
  const std::string liar = store.add(manifest);
  store.images[kRepository + "@" + liar] = {kRepository + "@" + liar, {test::kManifestType, liar, manifest.size()}, ""};
  CHECK(reason_of(liar) == model::Reason::kImageDigestMismatch);

  const auto left = base::list_dir(folder.path + "/images", 100);
  REQUIRE(left.ok());
  CHECK(left->empty());
}

TEST_CASE("removing an image removes its file, or only its name while another one stays") {
  const Folder folder;
  test::MemoryStore store;
  const std::string digest = test::add_image(store, kRepository, {base_layer()});
  test::add_image(store, "registry.example/second", {base_layer()});
  auto preparer = image::Preparer::create(options(folder));
  REQUIRE(preparer.ok());
  const auto prepare = [&](const std::string& repository) {
    return (*preparer)->prepare({repository, digest}, store, base::Deadline::after(60s)).ok();
  };
  REQUIRE(prepare(kRepository));
  REQUIRE(prepare("registry.example/second"));
  const image::Store images(folder.path + "/images", store);
  const auto listed = images.list(base::Deadline::after(5s));
  REQUIRE(listed.ok());
  REQUIRE(listed->size() == 2);
  CHECK(listed->front().prepared);
  REQUIRE(images.remove(kRepository + "@" + digest, base::Deadline::after(5s)).ok());
  CHECK_FALSE(prepare(kRepository));
  CHECK(prepare("registry.example/second"));
  REQUIRE(images.remove("registry.example/second@" + digest, base::Deadline::after(5s)).ok());
  CHECK_FALSE(prepare("registry.example/second"));
  CHECK(base::list_dir(folder.path + "/images", 10)->empty());
  CHECK(images.remove("registry.example/second@" + digest, base::Deadline::after(5s)).error().code() ==
        base::Errc::kNotFound);
}

TEST_CASE("a box past its deadline is killed") {
  const Folder folder;
  test::MemoryStore store;
  const model::ImageRef ref{kRepository, test::add_image(store, kRepository, {base_layer()})};
  auto preparer = image::Preparer::create(options(folder));
  REQUIRE(preparer.ok());
  auto result = (*preparer)->prepare(ref, store, base::Deadline::after(0s));
  REQUIRE_FALSE(result.ok());
  CHECK(result.error().reason == model::Reason::kStartDeadlineExceeded);
}

int main(int argc, char** argv) {
  if (::geteuid() != 0) {
    std::fprintf(stderr, "skipped: needs root\n");
    return 77;
  }
  if (!base::exists("/usr/bin/mkfs.erofs")) {
    std::fprintf(stderr, "skipped: needs /usr/bin/mkfs.erofs\n");
    return 77;
  }
  doctest::Context context(argc, argv);
  return context.run();
}
