// What a workload may do with the names and the files of its secrets, and what is left of them after their withdrawal.
#include "shim/guest/secret_files.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>

using namespace cellrund;

namespace {

struct Folder {
  Folder() {
    std::array<char, 64> name{"/tmp/cellrun-unit-secret-files.XXXXXX"};
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path = name.data();
    base::UniqueFd folder(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    REQUIRE(folder.valid());
    files.emplace(std::move(folder), ::getuid(), ::getgid());
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  Folder(Folder&&) = delete;
  Folder& operator=(Folder&&) = delete;
  ~Folder() { std::filesystem::remove_all(path); }

  void give(const std::string& name, const std::string& value) {
    REQUIRE(files->add({name, true, base::as_bytes(value)}).ok());
  }
  [[nodiscard]] std::string at(const std::string& name) const { return path + "/" + name; }

  std::string path;
  std::optional<guest::SecretFiles> files;
};

off_t size_of(int fd) {
  struct stat info {};
  REQUIRE(::fstat(fd, &info) == 0);
  return info.st_size;
}

}  // namespace

TEST_CASE_FIXTURE(Folder, "a value comes in pieces, is its owner's to read, and goes at once") {
  REQUIRE(files->add({"token", false, base::as_bytes("hun")}).ok());
  CHECK(files->pending());
  CHECK_FALSE(files->add({"other", true, base::as_bytes("x")}).ok());
  REQUIRE(files->add({"token", true, base::as_bytes("ter2")}).ok());
  CHECK_FALSE(files->pending());
  const base::UniqueFd reader(::open(at("token").c_str(), O_RDONLY | O_CLOEXEC));
  REQUIRE(reader.valid());
  CHECK(size_of(reader.get()) == 7);
  struct stat info {};
  REQUIRE(::stat(at("token").c_str(), &info) == 0);
  CHECK((info.st_mode & 07777) == 0400);
  CHECK(files->remove("token").ok());
  CHECK(files->remove("token").ok());
  CHECK(size_of(reader.get()) == 0);
  CHECK_FALSE(std::filesystem::exists(at("token")));
}

TEST_CASE_FIXTURE(Folder, "a name that was given to something else saves nothing, and holds nobody up") {
  give("token", "hunter2");
  give("other", std::string(10'000, 'k'));
  std::filesystem::rename(at("token"), at("hidden"));
  REQUIRE(::mkfifo(at("token").c_str(), 0600) == 0);
  std::filesystem::create_hard_link(at("other"), at("second"));
  CHECK(files->remove("token").ok());
  CHECK(files->remove("other").ok());
  CHECK(std::filesystem::file_size(at("hidden")) == 0);
  CHECK(std::filesystem::file_size(at("second")) == 0);
}

TEST_CASE_FIXTURE(Folder, "no lease keeps its withdrawal waiting") {
  give("token", "hunter2");
  const base::UniqueFd reader(::open(at("token").c_str(), O_RDONLY | O_CLOEXEC));
  REQUIRE(reader.valid());
  CHECK(::fcntl(reader.get(), F_SETLEASE, F_RDLCK) < 0);  // while a writer has it open: EAGAIN (fcntl(2))
  CHECK(files->remove("token").ok());
}

TEST_CASE_FIXTURE(Folder, "a file that its owner has grown or cut is emptied all the same") {
  give("token", "hunter2");
  REQUIRE(::chmod(at("token").c_str(), 0600) == 0);
  REQUIRE(::truncate(at("token").c_str(), off_t{1} << 40) == 0);
  CHECK(files->remove("token").ok());
  give("second", "hunter2");
  REQUIRE(::chmod(at("second").c_str(), 0600) == 0);
  const base::UniqueFd reader(::open(at("second").c_str(), O_RDONLY | O_CLOEXEC));
  REQUIRE(::truncate(at("second").c_str(), 0) == 0);
  CHECK(files->remove("second").ok());
  CHECK(size_of(reader.get()) == 0);
}
