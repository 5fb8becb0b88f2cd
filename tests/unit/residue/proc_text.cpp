#include "residue/proc_text.hpp"

#include <doctest/doctest.h>

#include <string>

namespace cellrund::residue {

TEST_CASE("stat: a hostile comm does not shift the fields") {
  const auto stat = parse_stat("42 (a) R 1 2) S 1 42 42 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 123456 1 1\n");
  REQUIRE(stat);
  CHECK(stat->comm == "a) R 1 2");
  CHECK(stat->state == 'S');
  CHECK(stat->start_time == 123456);
  CHECK(!stat->exiting);
}

TEST_CASE("stat: zombies and PF_EXITING are on their way out") {
  CHECK(parse_stat("42 (sh) Z 1 42 42 0 -1 4227084 1 0 0 0 0 0 0 0 20 0 1 0 5 1 1")->exiting);
  CHECK(parse_stat("42 (sh) S 1 42 42 0 -1 4 1 0 0 0 0 0 0 0 20 0 1 0 5 1 1")->exiting);
}

TEST_CASE("stat: malformed text is refused") {
  for (const char* text : {"", "42", "42 (sh", "42 sh) S", "42 (sh) S 1 2 3", ") (", "42 (sh) S 1 42 42 0 -1 4 1 0 0 0 0 0 0 0 20 0 1 0 x"}) {
    CHECK(!parse_stat(text));
  }
}

TEST_CASE("mountinfo: escapes, optional fields and a namespace root") {
  const auto mount = parse_mount_line("36 35 0:4 net:[4026532001] /run/a\\040b rw,noatime shared:5 master:1 - nsfs nsfs rw");
  REQUIRE(mount);
  CHECK(mount->id == 36);
  CHECK(mount->mount_point == "/run/a b");
  CHECK(mount->type == "nsfs");
  CHECK(mount->super_options == "rw");
  CHECK(namespace_inode(mount->root, "net") == 4026532001U);
  CHECK(!namespace_inode(mount->root, "mnt"));
}

TEST_CASE("mountinfo: malformed lines are refused") {
  for (const char* line : {"", "36", "x 35 0:4 / /a rw - tmpfs t rw", "36 35 0:4 / /a rw", "36 35 0:4 / /a rw -"}) {
    CHECK(!parse_mount_line(line));
  }
}

TEST_CASE("status: the real uid, which no name can forge") {
  CHECK(real_uid("Name:\ta\\nUid:\\t0\nUmask:\t0022\nUid:\t1000\t0\t0\t0\nGid:\t0\t0\t0\t0\n") == 1000U);
  CHECK(!real_uid("Name:\tUid:\t0\n"));
  CHECK(!real_uid("Uid:\tx\n"));
}

TEST_CASE("NUL-separated strings keep empty ones") {
  const auto parts = split_nul(std::string_view("a\0\0b\0", 5));
  REQUIRE(parts.size() == 3);
  CHECK(parts[0] == "a");
  CHECK(parts[1].empty());
  CHECK(parts[2] == "b");
}

}  // namespace cellrund::residue
