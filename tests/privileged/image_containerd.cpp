// Import into a real containerd and preparation from it. Needs root, containerd, mkfs.erofs and a static busybox;
// starts a containerd of its own in a folder of its own.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>

#include "base/file.hpp"
#include "base/process.hpp"
#include "containerd/client.hpp"
#include "image/containerd_store.hpp"
#include "image/layout_import.hpp"
#include "image/preparer.hpp"
#include "image/store.hpp"
#include "tests/support/image_layout.hpp"

using namespace cellrund;
using namespace std::chrono_literals;
using test::Tar;

namespace {

constexpr const char* kContainerd = "/usr/bin/containerd";
constexpr const char* kBusybox = "/bin/busybox";

struct Containerd {
  std::string dir;
  base::PidFd process;

  Containerd() {
    std::string name = "/tmp/cellrun-image-ctrd-XXXXXX";
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    dir = name;
    REQUIRE(base::write_file_atomic(
                dir + "/config.toml",
                "version = 2\nroot = \"" + dir + "/root\"\nstate = \"" + dir +
                    "/state\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\n  address = \"" + socket() +
                    "\"\n",
                0600)
                .ok());
    auto started = base::spawn({.argv = {kContainerd, "--config", dir + "/config.toml"},
                                .env = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin"},
                                .fds = {}});
    REQUIRE(started.ok());
    process = std::move(*started);
  }
  Containerd(const Containerd&) = delete;
  ~Containerd() {
    (void)process.signal(SIGTERM);
    auto exit = process.reap(base::Deadline::after(10s));
    if (!exit.ok() || !exit->has_value()) {
      (void)process.signal(SIGKILL);
      (void)process.reap(base::Deadline::after(10s));
    }
    std::error_code ignored;
    std::filesystem::remove_all(dir, ignored);
  }
  [[nodiscard]] std::string socket() const { return dir + "/containerd.sock"; }
};

}  // namespace

TEST_CASE("an archive goes through containerd and becomes a root file system, and leaves with its name") {
  const Containerd containerd;
  auto client = containerd::Client::create(containerd.socket(), "cellrun-image-test");
  REQUIRE(client.ok());
  REQUIRE(client->wait_ready(base::Deadline::after(30s)).ok());
  image::ContainerdStore store(*client);

  const std::string archive = containerd.dir + "/image.tar";
  const auto busybox = base::read_file(kBusybox, 64 << 20);
  REQUIRE(busybox.ok());
  REQUIRE(base::write_file_atomic(
              archive, test::layout({.layer = Tar().folder("bin").file("bin/busybox", *busybox, 0755).bytes()}), 0600)
              .ok());
  const auto imported = image::import_layout({.path = archive, .repository = ""}, store, base::Deadline::after(60s));
  REQUIRE_MESSAGE(imported.ok(), (imported.ok() ? "" : imported.error().message()));
  REQUIRE(imported->size() == 1);
  const std::string reference = imported->front().reference;
  CHECK(image::import_layout({.path = archive, .repository = ""}, store, base::Deadline::after(60s)).ok());
  CHECK(client->list_leases(base::Deadline::after(5s))->empty());

  const image::Store images(containerd.dir + "/images", store);
  const std::size_t at = reference.find('@');
  const model::ImageRef ref{reference.substr(0, at), reference.substr(at + 1)};
  auto preparer = image::Preparer::create({.images_dir = containerd.dir + "/images", .unpack_program = CELLRUN_UNPACK});
  REQUIRE(preparer.ok());
  auto prepared = (*preparer)->prepare(ref, store, base::Deadline::after(60s));
  REQUIRE_MESSAGE(prepared.ok(), (prepared.ok() ? "" : prepared.error().message));
  CHECK(prepared->ref().text() == reference);

  const auto listed = images.list(base::Deadline::after(5s));
  REQUIRE(listed.ok());
  REQUIRE(listed->size() == 1);
  CHECK(listed->front().name == reference);
  CHECK(listed->front().prepared);
  REQUIRE(images.remove(reference, base::Deadline::after(10s)).ok());
  CHECK(images.list(base::Deadline::after(5s))->empty());
  // Nothing refers to the blobs any more, and deletion is synchronous.
  CHECK(client->blob_info(ref.digest, base::Deadline::after(5s)).error().code() == base::Errc::kNotFound);
  auto gone = (*preparer)->prepare(ref, store, base::Deadline::after(60s));
  REQUIRE_FALSE(gone.ok());
  CHECK(gone.error().reason == model::Reason::kImageNotFound);
}

int main(int argc, char** argv) {
  for (const char* needed : {kContainerd, kBusybox, "/usr/bin/mkfs.erofs"}) {
    if (::geteuid() != 0 || !base::exists(needed)) {
      std::fprintf(stderr, "skipped: needs root and %s\n", needed);
      return 77;
    }
  }
  doctest::Context context(argc, argv);
  return context.run();
}
