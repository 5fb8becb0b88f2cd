// The unpacker's library part in a plain folder: whiteouts, links, and at least one row per kind of hostile entry.
#include "image/unpack/layer.hpp"

#include <archive.h>
#include <archive_entry.h>
#include <doctest/doctest.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/file.hpp"
#include "crypto/digest.hpp"
#include "tests/support/tar.hpp"

using namespace cellrund;
using namespace cellrund::image;
using test::TarEntry;

namespace {

constexpr std::uint32_t kIds = 65536;

// A tar whose entries belong to whoever runs the test, so that chown needs no privilege.
test::Tar tar() {
  return test::Tar(::getuid(), ::getgid());
}

struct Playground {
  std::string outer;
  std::string root;
  Budget budget{1U << 20U, 1000, 4U << 20U};
  std::optional<Tree> tree;

  Playground() {
    std::string name = "/tmp/cellrun-unpack-test-XXXXXX";
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    outer = name;
    root = outer + "/root";
    REQUIRE(base::make_dir(root, 0755).ok());
    std::ofstream(outer + "/outside") << "untouched";
    auto fd = base::open_file(root, O_RDONLY | O_DIRECTORY);
    REQUIRE(fd.ok());
    tree.emplace(std::move(*fd), kIds);
  }
  Playground(const Playground&) = delete;
  ~Playground() {
    // Whatever the entries were, nothing beside the root has changed.
    CHECK(read("../outside") == "untouched");
    CHECK(base::list_dir(outer, 100)->size() == 2);
    std::error_code ignored;
    std::filesystem::remove_all(outer, ignored);
  }
  base::Status apply(const std::string& bytes, Compression compression = Compression::kNone, std::string diff_id = "") {
    if (diff_id.empty()) {
      diff_id = crypto::digest_text(base::as_bytes(bytes));
    }
    return apply_as(bytes, compression, diff_id);
  }
  base::Status apply_as(const std::string& bytes, Compression compression, const std::string& diff_id) {
    const auto fd = base::sealed_memfd("layer", base::as_bytes(bytes));
    REQUIRE(fd.ok());
    return apply_layer(fd->get(), compression, diff_id, *tree, budget);
  }
  [[nodiscard]] std::string read(const std::string& name) const {
    const auto text = base::read_file(root + "/" + name, 1 << 20);
    return text.ok() ? *text : "<missing>";
  }
  [[nodiscard]] bool has(const std::string& name) const { return base::exists(root + "/" + name); }
  [[nodiscard]] struct stat status(const std::string& name) const {
    struct stat st {};
    CHECK(::lstat((root + "/" + name).c_str(), &st) == 0);
    return st;
  }
};

std::string compress(const std::string& bytes, bool gzip) {
  std::string out(bytes.size() + 65536, '\0');
  std::size_t used = 0;
  archive* writer = ::archive_write_new();
  REQUIRE(::archive_write_set_format_raw(writer) == ARCHIVE_OK);
  REQUIRE((gzip ? ::archive_write_add_filter_gzip(writer) : ::archive_write_add_filter_zstd(writer)) == ARCHIVE_OK);
  REQUIRE(::archive_write_open_memory(writer, out.data(), out.size(), &used) == ARCHIVE_OK);
  archive_entry* entry = ::archive_entry_new();
  ::archive_entry_set_filetype(entry, AE_IFREG);
  REQUIRE(::archive_write_header(writer, entry) == ARCHIVE_OK);
  REQUIRE(::archive_write_data(writer, bytes.data(), bytes.size()) == static_cast<la_ssize_t>(bytes.size()));
  ::archive_entry_free(entry);
  REQUIRE(::archive_write_close(writer) == ARCHIVE_OK);
  ::archive_write_free(writer);
  out.resize(used);
  return out;
}

}  // namespace

TEST_CASE("files, folders, links and FIFOs arrive with their modes") {
  Playground p;
  REQUIRE(p.apply(tar()
                      .folder("./", 0711)
                      .file("./deep/er/file", "content", 06755)
                      .folder("dir", 01777)
                      .symlink("abs", "/etc/passwd")
                      .symlink("up", "../../outside")
                      .hardlink("dir/hard", "deep/er/file")
                      .add({.name = "fifo", .type = '6', .mode = 0620})
                      .file("empty", "")
                      .bytes())
              .ok());
  CHECK((p.status(".").st_mode & 07777U) == 0711);
  CHECK(p.read("deep/er/file") == "content");
  CHECK((p.status("deep/er/file").st_mode & 07777U) == 06755);
  CHECK((p.status("deep").st_mode & 07777U) == 0755);
  CHECK((p.status("dir").st_mode & 07777U) == 01777);
  CHECK(std::filesystem::read_symlink(p.root + "/abs") == "/etc/passwd");
  CHECK(std::filesystem::read_symlink(p.root + "/up") == "../../outside");
  CHECK(p.status("dir/hard").st_ino == p.status("deep/er/file").st_ino);
  CHECK(S_ISFIFO(p.status("fifo").st_mode));
  CHECK((p.status("fifo").st_mode & 07777U) == 0620);
  CHECK(p.status("empty").st_size == 0);
}

TEST_CASE("long pax names and non-UTF-8 names survive") {
  Playground p;
  const std::string longest = std::string(120, 'a') + "/" + std::string(200, 'b');
  REQUIRE(p.apply(tar().pax("path", longest).file("short", "long").file("caf\xe9", "latin").bytes()).ok());
  CHECK(p.read(longest) == "long");
  CHECK(p.read("caf\xe9") == "latin");
}

TEST_CASE("gzip and zstd layers are read, and a media type that lies is refused") {
  const std::string bytes = tar().file("a", "compressed").bytes();
  const std::string diff_id = crypto::digest_text(base::as_bytes(bytes));
  for (const bool gzip : {true, false}) {
    Playground p;
    REQUIRE(p.apply_as(compress(bytes, gzip), gzip ? Compression::kGzip : Compression::kZstd, diff_id).ok());
    CHECK(p.read("a") == "compressed");
    Playground lying;
    CHECK_FALSE(lying.apply_as(bytes, gzip ? Compression::kGzip : Compression::kZstd, diff_id).ok());
    CHECK_FALSE(lying.apply_as(compress(bytes, gzip), gzip ? Compression::kZstd : Compression::kGzip, diff_id).ok());
    CHECK_FALSE(lying.apply_as(compress(bytes, gzip), Compression::kNone, diff_id).ok());
    std::string torn = compress(bytes, gzip);
    torn.resize(torn.size() / 2);
    CHECK_FALSE(lying.apply_as(torn, gzip ? Compression::kGzip : Compression::kZstd, diff_id).ok());
  }
}

TEST_CASE("a whiteout hides what lower layers made and nothing else") {
  Playground p;
  REQUIRE(p.apply(tar().file("a/one", "1").file("a/two", "2").file("b/three", "3").file("c", "c").bytes()).ok());
  REQUIRE(p.apply(tar()
                      .file("a/new", "new")
                      .file("a/.wh.one", "")
                      .file(".wh.b", "")
                      .file("b/fresh", "fresh")
                      .file(".wh.c", "")
                      .file("none/.wh.absent", "")
                      .file(".wh.neither", "")
                      .bytes())
              .ok());
  CHECK_FALSE(p.has("a/one"));
  CHECK(p.read("a/two") == "2");
  CHECK(p.read("a/new") == "new");
  CHECK_FALSE(p.has("b/three"));
  CHECK(p.read("b/fresh") == "fresh");
  CHECK_FALSE(p.has("c"));
  CHECK_FALSE(p.has("none"));
}

TEST_CASE("a whiteout after its sibling in one layer spares what this layer made") {
  Playground p;
  REQUIRE(p.apply(tar().file("d/old", "old").file("f", "lower").bytes()).ok());
  REQUIRE(p.apply(tar().file("d/new", "new").file(".wh.d", "").file("f", "upper").file(".wh.f", "").bytes()).ok());
  CHECK_FALSE(p.has("d/old"));
  CHECK(p.read("d/new") == "new");
  CHECK(p.read("f") == "upper");
}

TEST_CASE("an opaque folder loses its lower content wherever the marker stands, the root included") {
  Playground p;
  REQUIRE(p.apply(tar().file("d/old", "1").file("d/sub/old", "1").file("keep", "k").bytes()).ok());
  REQUIRE(p.apply(tar().file("d/sub/new", "2").file("d/.wh..wh..opq", "").file("d/late", "2").bytes()).ok());
  CHECK_FALSE(p.has("d/old"));
  CHECK_FALSE(p.has("d/sub/old"));
  CHECK(p.read("d/sub/new") == "2");
  CHECK(p.read("d/late") == "2");
  CHECK(p.read("keep") == "k");
  REQUIRE(p.apply(tar().file("only", "3").file(".wh..wh..opq", "").bytes()).ok());
  CHECK(base::list_dir(p.root, 10).value() == std::vector<std::string>{"only"});
}

TEST_CASE("later entries replace earlier ones of another kind") {
  Playground p;
  REQUIRE(p.apply(tar().file("x/file", "1").symlink("link", "x").file("dir", "1").file("same", "1").bytes()).ok());
  REQUIRE(p.apply(tar()
                      .file("x", "now a file")
                      .folder("link")
                      .file("link/inside", "2")
                      .folder("dir")
                      .file("same", "2")
                      .bytes())
              .ok());
  CHECK(p.read("x") == "now a file");
  CHECK(S_ISDIR(p.status("link").st_mode));
  CHECK(p.read("link/inside") == "2");
  CHECK(S_ISDIR(p.status("dir").st_mode));
  CHECK(p.read("same") == "2");
  // A file that replaces a hard-linked one must not write through the link.
  REQUIRE(p.apply(tar().hardlink("alias", "same").file("same", "3").bytes()).ok());
  CHECK(p.read("alias") == "2");
  CHECK(p.read("same") == "3");
}

TEST_CASE("a symbolic link is replaced and never written through") {
  Playground p;
  REQUIRE(p.apply(tar().symlink("escape", "../outside").bytes()).ok());
  REQUIRE(p.apply(tar().file("escape", "mine").bytes()).ok());
  CHECK(p.read("escape") == "mine");
}

TEST_CASE("hostile entries are refused") {
  struct Row {
    const char* what;
    std::string bytes;
  };
  const std::string deep = [] {
    std::string path;
    for (int i = 0; i < 300; ++i) {
      path += "d/";
    }
    return path + "f";
  }();
  const std::vector<Row> rows{
      {"climbs out", tar().file("../outside", "x").bytes()},
      {"climbs out in the middle", tar().file("a/../../outside", "x").bytes()},
      {"climbs and comes back", tar().file("a/../b", "x").bytes()},
      {"is only dots", tar().folder("..").bytes()},
      {"absolute", tar().file("/etc/x", "x").bytes()},
      {"absolute folder", tar().folder("//x").bytes()},
      {"file as root", tar().add({.name = ".", .content = "x"}).bytes()},
      {"symbolic link as root", tar().symlink(".", "/").bytes()},
      {"through a link out", tar().symlink("l", "..").file("l/outside", "x").bytes()},
      {"through an absolute link", tar().symlink("l", "/tmp").file("l/x", "x").bytes()},
      {"through an inner link", tar().folder("real").symlink("l", "real").file("l/x", "x").bytes()},
      {"through a link chain", tar().symlink("a", "b").symlink("b", "..").file("a/outside", "x").bytes()},
      {"folder through a link", tar().symlink("l", "..").folder("l/x").bytes()},
      {"whiteout through a link", tar().symlink("l", "..").file("l/.wh.outside", "").bytes()},
      {"opaque through a link", tar().symlink("l", "..").file("l/.wh..wh..opq", "").bytes()},
      {"whiteout of dots", tar().file(".wh...", "").bytes()},
      {"whiteout of dot", tar().file(".wh..", "").bytes()},
      {"whiteout of nothing", tar().file(".wh.", "").bytes()},
      {"reserved whiteout", tar().file(".wh..wh.plnk", "").bytes()},
      {"whiteout as folder", tar().folder(".wh.a").bytes()},
      {"whiteout as link", tar().symlink(".wh.a", "b").bytes()},
      {"path through a whiteout", tar().file(".wh.a/b", "").bytes()},
      {"hard link out", tar().hardlink("h", "../outside").bytes()},
      {"hard link to absolute", tar().hardlink("h", "/etc/passwd").bytes()},
      {"hard link through a link", tar().symlink("l", "..").hardlink("h", "l/outside").bytes()},
      {"hard link to nothing", tar().hardlink("h", "missing").bytes()},
      {"hard link to a folder", tar().folder("d").hardlink("h", "d").bytes()},
      {"hard link to itself", tar().file("h", "x").hardlink("h", "h").bytes()},
      {"hard link to the root", tar().hardlink("h", ".").bytes()},
      {"character device", tar().add({.name = "null", .type = '3'}).bytes()},
      {"block device", tar().add({.name = "sda", .type = '4'}).bytes()},
      {"file as parent", tar().file("f", "x").file("f/x", "x").bytes()},
      {"too deep", tar().pax("path", deep).file("x", "x").bytes()},
      {"component too long", tar().pax("path", std::string(300, 'n')).file("x", "x").bytes()},
      {"path too long", tar().pax("path", std::string(5000, 'p')).file("x", "x").bytes()},
      {"empty name", tar().add({.name = "", .content = "x"}).bytes()},
      {"empty link target", tar().symlink("l", "").bytes()},
      {"owner out of range", tar().add({.name = "x", .uid = 70000, .gid = 1}).bytes()},
      {"negative owner", tar().pax("uid", "-1").file("x", "x").bytes()},
      {"negative size", tar().pax("size", "-5").file("x", "x").bytes()},
      {"size in base 256",
       tar()
           .add({.name = "x", .size_field = std::string("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12)})
           .bytes()},
      {"size of 8 EiB", tar().pax("size", "9223372036854775807").file("x", "x").bytes()},
      {"torn header", tar().file("a", "b").unfinished().substr(0, 300)},
      {"torn content", tar().file("a", std::string(2000, 'x')).unfinished().substr(0, 1000)},
      {"bad checksum",
       [] {
         auto b = tar().file("abc", "x").bytes();
         b[0] = 'X';
         return b;
       }()},
      {"no tar at all", std::string(4096, 'q')},
      {"a cpio file", "070701" + std::string(4096, '0')},
  };
  for (const Row& row : rows) {
    CAPTURE(row.what);
    Playground p;
    const auto status = p.apply(row.bytes);
    CHECK_FALSE(status.ok());
    if (!status.ok()) {
      CHECK_FALSE(status.error().message().empty());
      CHECK(status.error().code() != base::Errc::kUnknown);
    }
  }
}

TEST_CASE("the budget holds over all layers") {
  Playground p;
  p.budget = {100, 2, 1U << 20U};
  REQUIRE(p.apply(tar().file("a", std::string(60, 'x')).bytes()).ok());
  CHECK(p.apply(tar().file("b", std::string(60, 'x')).bytes()).error().code() == base::Errc::kResourceExhausted);
  REQUIRE(p.apply(tar().file("c", "").bytes()).ok());
  CHECK(p.apply(tar().file("d", "").bytes()).error().code() == base::Errc::kResourceExhausted);
}

TEST_CASE("a decompression bomb ends at the stream limit") {
  Playground p;
  p.budget.stream_bytes = 1U << 20U;
  // 64 MiB of padding after the end of the archive: no entry, all stream.
  const std::string bytes = tar().file("a", "x").bytes() + std::string(64U << 20U, '\0');
  const auto status = p.apply_as(compress(bytes, true), Compression::kGzip, crypto::digest_text(base::as_bytes(bytes)));
  REQUIRE_FALSE(status.ok());
  CHECK(status.error().code() == base::Errc::kResourceExhausted);
}

TEST_CASE("every byte of a layer is under its diffID, those after its end included") {
  const std::string bytes = tar().file("a", "x").bytes();
  const std::string diff_id = crypto::digest_text(base::as_bytes(bytes));
  Playground p;
  CHECK(p.apply_as(bytes + std::string(512, 'z'), Compression::kNone, diff_id).error().code() == base::Errc::kDataLoss);
  CHECK(p.apply_as(bytes.substr(0, bytes.size() - 512), Compression::kNone, diff_id).error().code() ==
        base::Errc::kDataLoss);
  CHECK(p.apply_as(bytes, Compression::kNone, diff_id).ok());
}

TEST_CASE("entry paths are cut into plain components") {
  CHECK(split_entry_path("./a//b/./c/").value() == std::vector<std::string>{"a", "b", "c"});
  CHECK(split_entry_path(".").value().empty());
  CHECK(split_entry_path("...").value() == std::vector<std::string>{"..."});
  CHECK_FALSE(split_entry_path("").ok());
  CHECK_FALSE(split_entry_path("a/..").ok());
  CHECK_FALSE(split_entry_path(std::string_view("a\0b", 3)).ok());
}

TEST_CASE("inputs are files, folders and links: names are names, owners and setuid bits do not count") {
  Playground p;
  p.tree.emplace(base::open_file(p.root, O_RDONLY | O_DIRECTORY).value(), kIds, Whiteouts::kPlainNames);
  const auto apply = [&](const std::string& bytes) {
    const auto fd = base::sealed_memfd("inputs", base::as_bytes(bytes));
    REQUIRE(fd.ok());
    return apply_layer(fd->get(), Compression::kNone, crypto::digest_text(base::as_bytes(bytes)), *p.tree, p.budget, Purpose::kInputs);
  };
  if (::geteuid() == 0) {
    test::Tar foreign(70000, 70000);  // beyond the box's ids, which matters for layers alone
    foreign.add({.name = ".wh.name", .content = "plain", .mode = 06755});
    foreign.add({.name = ".wh.dir/", .type = '5'});
    foreign.add({.name = ".wh.dir/.wh..wh..opq", .content = "x"});
    REQUIRE(apply(foreign.bytes()).ok());
    CHECK(p.read(".wh.name") == "plain");
    CHECK((p.status(".wh.name").st_mode & 07777U) == 0755);
    CHECK(p.status(".wh.name").st_uid == 0);
    CHECK(p.has(".wh.dir/.wh..wh..opq"));
  }
  test::Tar pipe = tar();
  pipe.add({.name = "pipe", .type = '6'});
  const base::Status refused = apply(pipe.bytes());
  REQUIRE_FALSE(refused.ok());
  CHECK(refused.error().code() == base::Errc::kInvalidArgument);
  CHECK(refused.error().message().find("regular files, folders and links only") != std::string::npos);
}
