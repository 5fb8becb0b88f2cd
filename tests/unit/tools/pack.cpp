// A folder as an archive: the same tree gives the same bytes, and what cannot be in one is refused by name.
#include "pack.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <map>

#include "base/file.hpp"
#include "tar_file.hpp"

using namespace cellrund;
using cli::pack_files;

namespace {

// A folder that goes with its test. Its user names every file that it makes, in order.
class Folder {
 public:
  Folder() {
    REQUIRE(::mkdtemp(root.data()) != nullptr);
    REQUIRE(::chmod(root.c_str(), 0700) == 0);
  }
  ~Folder() {
    for (auto path = made_.rbegin(); path != made_.rend(); ++path) {
      if (::unlink(path->c_str()) != 0) {
        (void)::rmdir(path->c_str());
      }
    }
    (void)::rmdir(root.c_str());
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  Folder(Folder&&) = delete;
  Folder& operator=(Folder&&) = delete;

  std::string at(const std::string& name) {
    made_.push_back(root + "/" + name);
    return made_.back();
  }
  void file(const std::string& name, std::string_view text, unsigned mode = 0644) {
    const std::string path = at(name);
    const base::UniqueFd fd = base::open_file(path, O_WRONLY | O_CREAT | O_EXCL, 0600).value();
    REQUIRE(base::write_all(fd.get(), base::as_bytes(text)).ok());
    REQUIRE(::fchmod(fd.get(), mode) == 0);
  }
  void folder(const std::string& name, unsigned mode = 0755) {
    const std::string path = at(name);
    REQUIRE(::mkdir(path.c_str(), 0700) == 0);
    REQUIRE(::chmod(path.c_str(), mode) == 0);
  }
  std::string root = "/tmp/cellrun-pack.XXXXXX";

 private:
  std::vector<std::string> made_;
};

std::string bytes_of(const cli::PackedFiles& files) {
  std::string out(files.bytes, '\0');
  REQUIRE(::pread(files.archive.get(), out.data(), out.size(), 0) == static_cast<ssize_t>(out.size()));
  return out;
}

}  // namespace

TEST_CASE("the same tree gives the same bytes, whenever and in whatever order it was made") {
  Folder one;
  one.folder("sub");
  one.file("sub/b", "two");
  one.file("a", "one", 0755);
  REQUIRE(::symlink("../outside", one.at("link").c_str()) == 0);
  Folder two;
  REQUIRE(::symlink("../outside", two.at("link").c_str()) == 0);
  two.file("a", "one", 0755);
  two.folder("sub");
  two.file("sub/b", "two");
  const timespec long_ago[2] = {{1000, 0}, {1000, 0}};
  REQUIRE(::utimensat(AT_FDCWD, (two.root + "/a").c_str(), long_ago, 0) == 0);

  const auto first = pack_files(one.root).value();
  const auto second = pack_files(two.root).value();
  CHECK(first.digest == second.digest);
  CHECK(bytes_of(first) == bytes_of(second));
  // One folder, one link and two files with a block of content each, and the end of the archive.
  CHECK(first.bytes == 512 * (1 + 1 + 2 * 2 + 2));
  // For ever: a digest that a jobspec names must be found again by a later version.
  CHECK(first.digest == "sha256:196e067f4dc132cacc8ac2afec6fd8d275f6345e021ef6b28cab8c6c90b95f15");

  REQUIRE(::chmod((two.root + "/a").c_str(), 0644) == 0);
  CHECK(pack_files(two.root)->digest != first.digest);
}

TEST_CASE("a FIFO, a socket or a name that is no UTF-8 is refused, and named") {
  Folder folder;
  folder.folder("sub");
  REQUIRE(::mkfifo(folder.at("sub/pipe").c_str(), 0600) == 0);
  const auto fifo = pack_files(folder.root);
  REQUIRE_FALSE(fifo.ok());
  CHECK(fifo.error().code() == base::Errc::kInvalidArgument);
  CHECK(fifo.error().message().find("sub/pipe: a FIFO") != std::string::npos);

  Folder other;
  other.file("caf\xE9", "x");
  const auto latin = pack_files(other.root);
  REQUIRE_FALSE(latin.ok());
  CHECK(latin.error().message().find("no UTF-8") != std::string::npos);
}

TEST_CASE("only a folder or a plain tar archive will do") {
  CHECK_FALSE(pack_files("/nonexistent/folder").ok());
  CHECK_FALSE(pack_files("/dev/null").ok());
  Folder folder;
  folder.file("text", std::string(2000, 'x'));
  CHECK(pack_files(folder.root + "/text").error().message().find("neither a folder nor a tar archive") != std::string::npos);

  const auto packed = pack_files(folder.root).value();
  Folder place;
  place.file("a.tar", bytes_of(packed));
  const auto taken = pack_files(place.root + "/a.tar");
  REQUIRE(taken.ok());
  CHECK(taken->digest == packed.digest);
  CHECK(taken->bytes == packed.bytes);
}

TEST_CASE("a symbolic link is packed as a link, wherever it points") {
  Folder folder;
  REQUIRE(::symlink("/etc/shadow", folder.at("secret").c_str()) == 0);
  const auto packed = pack_files(folder.root);
  REQUIRE(packed.ok());
  CHECK(packed->bytes == 512 * 3);  // no content
  CHECK(bytes_of(*packed).find("/etc/shadow") == 157);
}

TEST_CASE("long names stand in an extended header") {
  Folder folder;
  std::string path;
  for (int i = 0; i < 3; ++i) {
    path += (i == 0 ? "" : "/") + std::string(60, static_cast<char>('a' + i));
    folder.folder(path);
  }
  folder.file(path + "/file", "x");
  const std::string bytes = bytes_of(pack_files(folder.root).value());
  CHECK(bytes.find(" path=" + path + "/file\n") != std::string::npos);
}

TEST_CASE("a file that grows, shrinks or is too large ends the packing") {
  Folder folder;
  folder.file("file", "12345");
  base::UniqueFd out = base::open_file("/tmp", O_TMPFILE | O_RDWR, 0600).value();
  const auto pack = [&](std::uint64_t size, std::uint64_t limit) {
    const base::UniqueFd content = base::open_file(folder.root + "/file", O_RDONLY).value();
    cli::TarFile tar(out.get(), limit);
    return tar.file("file", 0644, content.get(), size);
  };
  CHECK(pack(5, 4096).ok());
  CHECK(pack(4, 4096).error().code() == base::Errc::kFailedPrecondition);
  CHECK(pack(6, 4096).error().code() == base::Errc::kFailedPrecondition);
  CHECK(pack(5, 600).error().code() == base::Errc::kResourceExhausted);
}
