#include "cell/secret_store.hpp"

#include <doctest/doctest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "base/file.hpp"
#include "cell/secret_server.hpp"

using namespace cellrund;

namespace {

struct Folder {
  Folder() {
    REQUIRE(::mkdtemp(path.data()) != nullptr);
    REQUIRE(base::make_dir(path + "/files", 0700).ok());
    REQUIRE(base::make_dir(path + "/files/research", 0700).ok());
    REQUIRE(base::make_dir(path + "/credentials", 0700).ok());
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  void write(const std::string& name, const std::string& text, unsigned mode = 0600) const {
    REQUIRE(base::write_file_atomic(path + name, text, mode).ok());
  }
  [[nodiscard]] cell::SecretStore store() const { return cell::SecretStore(path + "/files", path + "/credentials", ::geteuid()); }
  std::string path = "/tmp/cellrun-secrets-XXXXXX";
};

std::string text(const base::Secret& secret) {
  return {reinterpret_cast<const char*>(secret.bytes().data()), secret.bytes().size()};
}

base::Errc error_of(const Folder& folder, const std::string& ref = "research/token") {
  const auto value = folder.store().read(ref);
  return value.ok() ? base::Errc::kUnknown : value.error().code();
}

}  // namespace

TEST_CASE("a secret is read from its namespace's folder, or from a systemd credential") {
  const Folder folder;
  folder.write("/files/research/token", "abc\n");
  folder.write("/credentials/research.key", std::string("\0x", 2));
  CHECK(text(*folder.store().read("research/token")) == "abc\n");
  CHECK(text(*folder.store().read("research/key")) == std::string("\0x", 2));
  CHECK(error_of(folder, "research/other") == base::Errc::kNotFound);
  CHECK(error_of(folder, "ops/token") == base::Errc::kNotFound);
  CHECK(cell::SecretStore("/nonexistent", "").read("a/b").error().code() == base::Errc::kNotFound);
}

TEST_CASE("a reference leads nowhere else") {
  const Folder folder;
  folder.write("/outside", "x");
  for (const char* ref : {"research/../../outside", "../outside", "research/..", "research/", "/research/token", "research", "", "a/b/c"}) {
    CAPTURE(ref);
    CHECK(error_of(folder, ref) == base::Errc::kInvalidArgument);
  }
}

TEST_CASE("a secret that is not kept as it must be is refused") {
  const Folder folder;
  const std::string file = folder.path + "/files/research/token";
  const std::string space = folder.path + "/files/research";
  const auto refused = [&] { return error_of(folder) == base::Errc::kPermissionDenied; };
  folder.write("/files/research/token", "abc", 0640);
  CHECK(refused());
  folder.write("/files/research/token", "abc", 0604);
  CHECK(refused());
  folder.write("/files/research/token", "abc");
  CHECK(error_of(folder) == base::Errc::kUnknown);  // read
  SUBCASE("folder of the namespace") { REQUIRE(::chmod(space.c_str(), 0750) == 0); }
  SUBCASE("folder above") { REQUIRE(::chmod((folder.path + "/files").c_str(), 0711) == 0); }
  SUBCASE("a second name") { REQUIRE(::link(file.c_str(), (file + "2").c_str()) == 0); }
  SUBCASE("a symbolic link") {
    REQUIRE(::rename(file.c_str(), (folder.path + "/moved").c_str()) == 0);
    REQUIRE(::symlink((folder.path + "/moved").c_str(), file.c_str()) == 0);
  }
  SUBCASE("a linked folder") {
    REQUIRE(::rename(space.c_str(), (folder.path + "/moved").c_str()) == 0);
    REQUIRE(::symlink((folder.path + "/moved").c_str(), space.c_str()) == 0);
  }
  SUBCASE("a FIFO") {
    REQUIRE(::unlink(file.c_str()) == 0);
    REQUIRE(::mkfifo(file.c_str(), 0600) == 0);
  }
  SUBCASE("empty") { folder.write("/files/research/token", ""); }
  SUBCASE("too long") { folder.write("/files/research/token", std::string(wire::kMaxSecretBytes + 1, 'x')); }
  CHECK(refused());
  const auto refusal = folder.store().refusal({{.name = "t", .ref = "research/token", .ttl = {}}});
  REQUIRE(refusal.has_value());
  CHECK(refusal->field == "spec.secrets[0].ref");
}

TEST_CASE("another owner's files are refused") {
  const Folder folder;
  folder.write("/files/research/token", "abc");
  CHECK(cell::SecretStore(folder.path + "/files", "", ::geteuid() + 1).read("research/token").error().code() ==
        base::Errc::kPermissionDenied);
}

TEST_CASE("the socket gives the values to the named process alone") {
  const Folder folder;
  auto server = cell::SecretServer::create(folder.path + "/socket");
  REQUIRE(server.ok());
  struct stat info {};
  REQUIRE(::stat(server->path().c_str(), &info) == 0);
  CHECK((info.st_mode & 0777) == 0600);
  CHECK(server->hand_over({}, ::getpid(), base::Deadline::after(std::chrono::milliseconds(1))).error().code() ==
        base::Errc::kDeadlineExceeded);
}
