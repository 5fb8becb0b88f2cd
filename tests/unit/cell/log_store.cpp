#include "cell/log_store.hpp"

#include <doctest/doctest.h>
#include <stdlib.h>

using namespace cellrund;

namespace {

struct Folder {
  Folder() { REQUIRE(::mkdtemp(path.data()) != nullptr); }
  ~Folder() {
    for (const char* name : {"/log/stdout", "/log/stderr"}) {
      (void)base::remove_file(path + name);
    }
    (void)base::remove_dir(path + "/log");
    (void)base::remove_dir(path);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  std::string path = "/tmp/cellrun-log-XXXXXX";
};

}  // namespace

TEST_CASE("both streams share one budget, and what does not fit is said to be missing") {
  const Folder folder;
  auto logs = cell::LogStore::create(folder.path + "/log", 10);
  REQUIRE(logs.ok());
  CHECK(*logs->append(cell::Stream::kStdout, base::as_bytes("12345678")) == 8);
  CHECK(*logs->append(cell::Stream::kStderr, base::as_bytes("abcdef")) == 2);
  CHECK(*logs->append(cell::Stream::kStdout, base::as_bytes("more")) == 0);
  CHECK(*cell::read_log(folder.path + "/log", cell::Stream::kStdout, 4, 100) == "5678");
  CHECK(*cell::read_log(folder.path + "/log", cell::Stream::kStderr, 0, 100) == "ab");
  CHECK(cell::stored_log_bytes(folder.path + "/log") == 10);
  const auto facts = logs->finish();
  REQUIRE(facts.ok());
  CHECK(facts->bytes == 10);
  CHECK(facts->truncated);
  // printf 12345678ab | sha256sum
  CHECK(facts->sha256 == "sha256:c21fdba4372f9c0c2a69a9ecf661dfbb61e51c36b7fc1317cbacdd600db60abe");
}
