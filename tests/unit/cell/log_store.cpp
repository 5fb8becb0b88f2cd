#include "cell/log_store.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

using namespace cellrund;
using cell::Stream;

namespace {

struct Folder {
  Folder() {
    REQUIRE(::mkdtemp(path.data()) != nullptr);
    log = path + "/log";
  }
  ~Folder() {
    for (const char* name : {"/stdout", "/stderr", "/index"}) {
      (void)base::remove_file(log + name);
    }
    (void)base::remove_dir(log);
    (void)base::remove_dir(path);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  std::string path = "/tmp/cellrun-log-XXXXXX";
  std::string log;

  // As a crash may leave it: bytes that were written last.
  void write_raw(const char* name, std::string_view bytes) const {
    auto file = base::open_file(log + name, O_WRONLY | O_APPEND);
    REQUIRE(file.ok());
    REQUIRE(base::write_all(file->get(), base::as_bytes(bytes)).ok());
  }
  std::string text(Stream stream) const { return *cell::read_log(log, stream, 0, 1U << 20U); }
};

cell::LogStore make(const Folder& folder, std::uint64_t max_bytes) {
  auto logs = cell::LogStore::create(folder.log, max_bytes);
  REQUIRE(logs.ok());
  return std::move(*logs);
}

std::vector<cell::LogPiece> pieces(const Folder& folder, cell::LogCursor& cursor, std::size_t limit) {
  std::vector<cell::LogPiece> out;
  for (;;) {
    auto piece = cell::read_log_piece(folder.log, cursor, limit);
    REQUIRE(piece.ok());
    if (!piece->has_value()) {
      return out;
    }
    out.push_back(std::move(**piece));
  }
}

}  // namespace

TEST_CASE("both streams share one budget, and what does not fit is said to be missing") {
  const Folder folder;
  cell::LogStore logs = make(folder, 10);
  CHECK(*logs.append(Stream::kStdout, base::as_bytes("12345678")) == 8);
  CHECK_FALSE(logs.truncated());
  CHECK_FALSE(cell::log_was_cut(folder.log));
  CHECK(*logs.append(Stream::kStderr, base::as_bytes("abcdef")) == 2);
  CHECK(*logs.append(Stream::kStdout, base::as_bytes("more")) == 0);
  CHECK(logs.truncated());
  CHECK(cell::log_was_cut(folder.log));
  CHECK(*cell::read_log(folder.log, Stream::kStdout, 4, 100) == "5678");
  CHECK(*cell::read_log(folder.log, Stream::kStderr, 0, 100) == "ab");
  CHECK(cell::stored_log_bytes(folder.log) == 10);
  const auto facts = logs.finish();
  REQUIRE(facts.ok());
  CHECK(facts->bytes == 10);
  CHECK(facts->truncated);
  // printf 12345678ab | sha256sum
  CHECK(facts->sha256 == "sha256:c21fdba4372f9c0c2a69a9ecf661dfbb61e51c36b7fc1317cbacdd600db60abe");
  CHECK(cell::repair_log(folder.log)->truncated);
  CHECK(cell::repair_log(folder.log)->sha256 == facts->sha256);
}

TEST_CASE("pieces come in the order of arrival, with rising times, and a reader may stop anywhere") {
  const Folder folder;
  cell::LogStore logs = make(folder, 1000);
  cell::LogCursor cursor;
  CHECK(pieces(folder, cursor, 100).empty());
  REQUIRE(logs.append(Stream::kStdout, base::as_bytes("one\n")).ok());
  REQUIRE(logs.append(Stream::kStderr, base::as_bytes("two\n")).ok());
  REQUIRE(logs.append(Stream::kStdout, base::as_bytes("three\n")).ok());
  auto first = pieces(folder, cursor, 3);
  std::string joined, order;
  for (const cell::LogPiece& piece : first) {
    joined += piece.data;
    order += piece.stream == Stream::kStdout ? 'o' : 'e';
    CHECK(piece.wall_ns > 0);
    CHECK(piece.wall_ns >= first.front().wall_ns);
  }
  CHECK(joined == "one\ntwo\nthree\n");
  CHECK(order == "ooeeoo");
  // The last record may have grown since, or another one follows: nothing is told twice or left out.
  REQUIRE(logs.append(Stream::kStdout, base::as_bytes("four\n")).ok());
  const auto rest = pieces(folder, cursor, 100);
  REQUIRE(rest.size() == 1);
  CHECK(rest.front().data == "four\n");
  CHECK(rest.front().offset == 10);
}

TEST_CASE("a torn tail is cut, not misread") {
  const Folder folder;
  cell::LogStore logs = make(folder, 1000);
  REQUIRE(logs.append(Stream::kStdout, base::as_bytes("whole")).ok());
  REQUIRE(logs.append(Stream::kStderr, base::as_bytes("also whole")).ok());
  const std::string digest = logs.finish()->sha256;

  SUBCASE("bytes without a record") { folder.write_raw("/stdout", "torn"); }
  SUBCASE("half a record") { folder.write_raw("/index", "0123456789"); }
  SUBCASE("a record of garbage") { folder.write_raw("/index", std::string(32, '\x01')); }
  SUBCASE("a record that promises more than there is") {
    const cell::LogRecord record{.kind = cell::LogRecord::Kind::kStdout, .bytes = 4, .wall_ns = 1, .crc = 0};
    const auto bytes = cell::encode(record);
    folder.write_raw("/index", {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
    folder.write_raw("/stdout", "to");
  }
  SUBCASE("a record of other bytes than there are") {
    const cell::LogRecord record{
        .kind = cell::LogRecord::Kind::kStdout, .bytes = 4, .wall_ns = 1, .crc = cell::extend_crc(0, base::as_bytes("torn"))};
    const auto bytes = cell::encode(record);
    folder.write_raw("/index", {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
    folder.write_raw("/stdout", std::string(4, '\0'));
  }
  const auto facts = cell::repair_log(folder.log);
  REQUIRE(facts.ok());
  CHECK(facts->sha256 == digest);
  CHECK(facts->bytes == 15);
  CHECK_FALSE(facts->truncated);
  CHECK(folder.text(Stream::kStdout) == "whole");
  CHECK(folder.text(Stream::kStderr) == "also whole");
  cell::LogCursor cursor;
  CHECK(pieces(folder, cursor, 100).size() == 2);
}

TEST_CASE("the index is bounded, and what it has no room for is still told") {
  const Folder folder;
  cell::LogStore logs = make(folder, 1U << 20U);
  const std::uint64_t count = cell::kMaxLogRecords + 1000;
  for (std::uint64_t i = 0; i < count; ++i) {
    REQUIRE(logs.append(i % 2 == 0 ? Stream::kStdout : Stream::kStderr, base::as_bytes("x")).ok());
  }
  CHECK(base::read_file(folder.log + "/index", 16U << 20U)->size() == cell::kMaxLogRecords * cell::kLogRecordBytes);
  cell::LogCursor cursor;
  std::size_t told = 0;
  for (const cell::LogPiece& piece : pieces(folder, cursor, 4096)) {
    told += piece.data.size();
  }
  CHECK(told == count);
  CHECK(cell::repair_log(folder.log)->bytes == count);
}

TEST_CASE("a job that stored nothing has nothing to repair") {
  const Folder folder;
  CHECK(cell::repair_log(folder.path + "/none").error().code() == base::Errc::kNotFound);
  CHECK_FALSE(cell::log_was_cut(folder.path + "/none"));
}
