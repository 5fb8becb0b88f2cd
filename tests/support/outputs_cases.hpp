// Hostile archives of /outputs, and exactly what the collector is to make of each. Used in process (unit) and through the
// real cellrun-collect in its box (privileged). Budgets of every case: kBudget.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/file.hpp"
#include "cell/collect/answer.hpp"
#include "shim/wire/codec.hpp"
#include "shim/wire/outputs.hpp"

namespace outputs_test {

using namespace cellrund;
using wire::OutputRefusal;

inline constexpr cell::collect::Request kBudget{1000, 8};
inline constexpr std::uint32_t kPlain = S_IFREG | 0644;

class Archive {
 public:
  Archive() { add(wire::archive_head()); }
  static Archive without_head() { return Archive(0); }

  Archive& file(std::string_view path, std::string_view content, std::uint32_t mode = kPlain) {
    return open(path, content.size(), mode).piece(content).close();
  }
  Archive& open(std::string_view path, std::uint64_t size, std::uint32_t mode = kPlain) { return add(wire::file_record(path, mode, size)); }
  Archive& piece(std::string_view content) {
    while (!content.empty()) {
      const std::string_view part = content.substr(0, wire::kMaxPiece);
      add(wire::piece_head(static_cast<std::uint32_t>(part.size()))).raw(part);
      content.remove_prefix(part.size());
    }
    return *this;
  }
  Archive& close(bool whole = true) { return add(wire::file_end(whole)); }
  Archive& refused(std::string_view path, OutputRefusal why) { return add(wire::refused_record(path, why)); }
  Archive& end(std::uint64_t unlisted = 0) { return add(wire::end_record(unlisted)); }
  Archive& raw(std::string_view bytes) { return add(base::as_bytes(bytes)); }
  Archive& add(base::BytesView bytes) {
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    return *this;
  }
  [[nodiscard]] Archive cut(std::size_t from_end) const {
    Archive out = *this;
    out.bytes_.resize(out.bytes_.size() - from_end);
    return out;
  }
  [[nodiscard]] const base::Bytes& bytes() const { return bytes_; }

 private:
  explicit Archive(int) {}
  base::Bytes bytes_;
};

struct Case {
  std::string name;
  Archive archive;
  std::vector<std::pair<std::string, std::string>> taken;    // path, content
  std::vector<std::pair<std::string, std::string>> refused;  // path as listed, why
  std::string incomplete;                                    // how the reason begins; empty: the archive is whole
  std::uint64_t refused_count = 0;                           // 0: as many as are listed
};

inline std::string repeat(std::string_view text, std::size_t n) {
  std::string out;
  for (std::size_t i = 0; i < n; ++i) {
    out += text;
  }
  return out;
}

inline std::vector<Case> cases() {
  const std::string kBadName = "name is not plain UTF-8, or leads out of the folder";
  const std::string long_name(255, 'n');
  const std::string deep = repeat("d/", 31) + "f";
  std::vector<Case> out;
  const auto add = [&out](Case c) { out.push_back(std::move(c)); };
  // One file of a name that must not be taken, and a good one after it.
  const auto bad_name = [&](const std::string& name, const std::string& path, const std::string& listed, const std::string& why) {
    add({name, Archive().file(path, "evil").file("good", "x").end(), {{"good", "x"}}, {{listed, why}}, "", 0});
  };
  const auto bad_type = [&](const std::string& name, std::uint32_t mode, const std::string& why) {
    add({name, Archive().file("thing", "x", mode).file("good", "y").end(), {{"good", "y"}}, {{"thing", why}}, "", 0});
  };
  const auto said = [&](OutputRefusal why) {
    add({"refused by the guest: " + std::string(to_string(why)), Archive().refused("p", why).end(), {}, {{"p", std::string(to_string(why))}}, "", 0});
  };
  const auto broken = [&](const std::string& name, Archive archive, const std::string& why) {
    add({name, std::move(archive), {}, {}, why, 0});
  };

  // What is as it should be.
  add({"nothing in the folder", Archive().end(), {}, {}, "", 0});
  add({"an empty file", Archive().file("empty", "").end(), {{"empty", ""}}, {}, "", 0});
  add({"files in folders", Archive().file("a", "1").file("d/b", "22").file("d/e/c", "333").end(), {{"a", "1"}, {"d/b", "22"}, {"d/e/c", "333"}}, {}, "", 0});
  add({"names that differ in case alone", Archive().file("Read", "1").file("READ", "2").file("read", "3").end(), {{"Read", "1"}, {"READ", "2"}, {"read", "3"}}, {}, "", 0});
  add({"a name of 255 bytes", Archive().file(long_name, "x").end(), {{long_name, "x"}}, {}, "", 0});
  add({"32 components", Archive().file(deep, "x").end(), {{deep, "x"}}, {}, "", 0});
  add({"names in UTF-8", Archive().file("\xC3\xBC/\xE2\x82\xAC/\xF0\x9F\x98\x80", "x").end(), {{"\xC3\xBC/\xE2\x82\xAC/\xF0\x9F\x98\x80", "x"}}, {}, "", 0});
  add({"quotes, backslash, spaces, dashes, dots", Archive().file("-rf \"\\' $(x)", "1").file("...", "2").file(".hidden", "3").end(), {{"-rf \"\\' $(x)", "1"}, {"...", "2"}, {".hidden", "3"}}, {}, "", 0});
  add({"set-uid, set-gid, sticky and executable bits are not kept", Archive().file("su", "x", S_IFREG | 07777).end(), {{"su", "x"}}, {}, "", 0});
  add({"one byte a piece", Archive().open("f", 3).piece("a").piece("b").piece("c").close().end(), {{"f", "abc"}}, {}, "", 0});
  add({"exactly the budget of bytes", Archive().file("f", std::string(1000, 'x')).end(), {{"f", std::string(1000, 'x')}}, {}, "", 0});

  // Names.
  bad_name("..", "..", "..", kBadName);
  bad_name("../", "../escape", "../escape", kBadName);
  bad_name(".. within", "a/../../escape", "a/../../escape", kBadName);
  bad_name(".. at the end", "a/..", "a/..", kBadName);
  bad_name("absolute", "/etc/passwd", "/etc/passwd", kBadName);
  bad_name("two slashes first", "//etc/passwd", "//etc/passwd", kBadName);
  bad_name("empty", "", "", kBadName);
  bad_name("a dot", ".", ".", kBadName);
  bad_name("a dot within", "a/./b", "a/./b", kBadName);
  bad_name("empty component", "a//b", "a//b", kBadName);
  bad_name("last slash", "a/", "a/", kBadName);
  bad_name("only a slash", "/", "/", kBadName);
  bad_name("NUL", std::string("a\0b", 3), "\"a\\x00b\"", kBadName);
  bad_name("newline", "a\nb", "\"a\\x0ab\"", kBadName);
  bad_name("carriage return", "a\rb", "\"a\\x0db\"", kBadName);
  bad_name("tab", "a\tb", "\"a\\x09b\"", kBadName);
  bad_name("ESC of a terminal", "\x1b[31mred", "\"\\x1b[31mred\"", kBadName);
  bad_name("DEL", "a\x7f", "\"a\\x7f\"", kBadName);
  bad_name("C1 control", "a\xC2\x9B", "\"a\\xc2\\x9b\"", kBadName);
  bad_name("no UTF-8", "a\xFF", "\"a\\xff\"", kBadName);
  bad_name("overlong UTF-8 of a slash", "a\xC0\xAF" "b", "\"a\\xc0\\xafb\"", kBadName);
  bad_name("overlong UTF-8 of dots", "\xE0\x80\xAE\xE0\x80\xAE", "\"\\xe0\\x80\\xae\\xe0\\x80\\xae\"", kBadName);
  bad_name("a surrogate", "\xED\xA0\x80", "\"\\xed\\xa0\\x80\"", kBadName);
  bad_name("beyond Unicode", "\xF4\x90\x80\x80", "\"\\xf4\\x90\\x80\\x80\"", kBadName);
  bad_name("UTF-8 cut short", "a\xE2\x82", "\"a\\xe2\\x82\"", kBadName);
  bad_name("a name of 256 bytes", std::string(256, 'n'), std::string(256, 'n'), "name too long");
  bad_name("33 components", repeat("d/", 32) + "f", repeat("d/", 32) + "f", "too many folders deep");
  bad_name("2000 components", repeat("d/", 2000) + "f", "\"" + repeat("d/", 30) + "\"...", "too many folders deep");
  bad_name("a path of 1200 bytes", repeat(std::string(239, 'p') + "/", 5) + "f", "\"" + std::string(60, 'p') + "\"...", "name too long");

  // Types.
  bad_type("symbolic link", S_IFLNK | 0777, "symbolic link");
  bad_type("FIFO", S_IFIFO | 0644, "FIFO");
  bad_type("socket", S_IFSOCK | 0755, "socket");
  bad_type("character device", S_IFCHR | 0666, "device");
  bad_type("block device", S_IFBLK | 0660, "device");
  bad_type("folder as a file", S_IFDIR | 0755, "not a regular file");
  bad_type("no type", 0644, "not a regular file");
  bad_type("all types", 0xFFFFFFFF, "not a regular file");
  for (std::uint8_t why = 1; why <= wire::kLastOutputRefusal; ++why) {
    said(static_cast<OutputRefusal>(why));
  }
  add({"refused by the guest, with ESC in the name", Archive().refused("\x1b]0;x\a", OutputRefusal::kName).end(), {}, {{"\"\\x1b]0;x\\x07\"", kBadName}}, "", 0});

  // Two of a kind.
  add({"the same name twice", Archive().file("a", "first").file("a", "second").end(), {{"a", "first"}}, {{"a", "a second one of this name"}}, "", 0});
  add({"a file where a folder is", Archive().file("d/f", "1").file("d", "2").end(), {{"d/f", "1"}}, {{"d", "a folder and a file of one name"}}, "", 0});
  add({"a folder where a file is", Archive().file("d", "1").file("d/e/f", "2").end(), {{"d", "1"}}, {{"d/e/f", "a folder and a file of one name"}}, "", 0});

  // Sizes.
  add({"sparse, 8 EiB", Archive().open("huge", ~0ULL >> 1U).close().file("good", "x").end(), {{"good", "x"}}, {{"huge", "over the budget of bytes"}}, "", 0});
  add({"2^64 - 1 bytes", Archive().open("huge", ~0ULL).close().end(), {}, {{"huge", "over the budget of bytes"}}, "", 0});
  add({"one byte over the budget", Archive().file("f", std::string(1001, 'x')).end(), {}, {{"f", "over the budget of bytes"}}, "", 0});
  add({"over the budget with the second", Archive().file("a", std::string(600, 'a')).file("b", std::string(600, 'b')).file("c", std::string(400, 'c')).end(), {{"a", std::string(600, 'a')}, {"c", std::string(400, 'c')}}, {{"b", "over the budget of bytes"}}, "", 0});
  {
    Archive many;
    Case c{"more files than the budget", {}, {}, {}, "", 0};
    for (int i = 0; i < 10; ++i) {
      const std::string name = "f" + std::to_string(i);
      many.file(name, "x");
      (i < 8 ? c.taken : c.refused).emplace_back(name, i < 8 ? "x" : "over the budget of files");
    }
    c.archive = many.end();
    add(std::move(c));
  }
  {
    Archive many;
    Case c{"more refusals than are listed", {}, {}, {}, "", 0};
    for (std::size_t i = 0; i < cell::collect::kMaxListed + 50; ++i) {
      const std::string name = "l" + std::to_string(i);
      many.refused(name, OutputRefusal::kSymlink);
      if (i < cell::collect::kMaxListed) {
        c.refused.emplace_back(name, "symbolic link");
      }
    }
    c.archive = many.end(7);
    c.refused_count = cell::collect::kMaxListed + 57;
    add(std::move(c));
  }
  add({"a count of refusals beyond all bounds", Archive().end(~0ULL), {}, {}, "", ~0ULL >> 1U});

  // Changed while it was read.
  add({"shorter than announced", Archive().open("f", 5).piece("abc").close().file("g", "x").end(), {{"g", "x"}}, {{"f", "changed while it was read"}}, "", 0});
  add({"longer than announced", Archive().open("f", 3).piece("abcdef").close().file("g", "x").end(), {{"g", "x"}}, {{"f", "changed while it was read"}}, "", 0});
  add({"longer by a second piece", Archive().open("f", 3).piece("abc").piece("d").close().end(), {}, {{"f", "changed while it was read"}}, "", 0});
  add({"changed, says the guest", Archive().open("f", 3).piece("abc").close(false).file("f", "xyz").end(), {{"f", "xyz"}}, {{"f", "changed while it was read"}}, "", 0});
  add({"bytes of a refused one do not count", Archive().file("../x", std::string(5000, 'x')).file("good", std::string(1000, 'y')).end(), {{"good", std::string(1000, 'y')}}, {{"../x", kBadName}}, "", 0});

  // No archive, or not all of it.
  broken("nothing at all", Archive::without_head(), "the cell handed nothing over");
  broken("half a head", Archive::without_head().raw("CR"), "the archive ends before its end");
  broken("a tar", Archive::without_head().raw(std::string(512, 'a')), "outputs archive: it does not begin as one");
  broken("another version", Archive::without_head().raw("CRO2").end(), "outputs archive: it does not begin as one");
  broken("record 0", Archive().raw(std::string(1, '\0')), "outputs archive: unknown record");
  broken("record 255", Archive().raw("\xFF"), "outputs archive: unknown record");
  broken("a path of 64 KiB", Archive().raw(std::string("\x01", 1) + std::string(12, '\0') + "\xFF\xFF" + std::string(100, 'a')), "outputs archive: a path is too long");
  broken("a refusal for no reason", Archive().raw(std::string("\x02\x00\x01\x00p", 5)), "outputs archive: unknown reason of a refusal");
  broken("a refusal for an unknown reason", Archive().raw(std::string("\x02\x7F\x01\x00p", 5)), "outputs archive: unknown reason of a refusal");
  broken("a refusal of a path of 64 KiB", Archive().raw(std::string("\x02\x01\xFF\xFFp", 5)), "outputs archive: a path is too long");
  add({"a piece of 4 GiB", Archive().open("f", 5).raw("\xFF\xFF\xFF\xFF"), {}, {{"f", "cut short"}}, "outputs archive: a piece is too long", 0});
  add({"an unknown status", Archive().file("good", "x").open("f", 0).raw(std::string("\0\0\0\0\x02", 5)), {{"good", "x"}}, {{"f", "cut short"}}, "outputs archive: unknown status of a file", 0});
  add({"cut within a file", Archive().file("a", "1").open("f", 10).piece("abc"), {{"a", "1"}}, {{"f", "cut short"}}, "the archive ends before its end", 0});
  add({"cut within a piece", Archive().file("a", "1").open("f", 3).piece("abc").cut(1), {{"a", "1"}}, {{"f", "cut short"}}, "the archive ends before its end", 0});
  add({"cut before the status", Archive().file("a", "1").cut(1), {}, {{"a", "cut short"}}, "the archive ends before its end", 0});
  add({"cut within a path", Archive().file("a", "1").open("longer", 3).cut(2), {{"a", "1"}}, {}, "the archive ends before its end", 0});
  add({"no end", Archive().file("a", "1"), {{"a", "1"}}, {}, "the archive ends before its end", 0});
  add({"cut within the end", Archive().file("a", "1").end().cut(3), {{"a", "1"}}, {}, "the archive ends before its end", 0});
  add({"bytes after the end", Archive().file("a", "1").end().file("b", "2"), {{"a", "1"}}, {}, "outputs archive: bytes after the end", 0});
  add({"two ends", Archive().file("a", "1").end().end(), {{"a", "1"}}, {}, "outputs archive: bytes after the end", 0});
  return out;
}

}  // namespace outputs_test
