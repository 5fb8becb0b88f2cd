#include <doctest/doctest.h>

#include "host/cgroup.hpp"

using namespace cellrund::host;

namespace {
constexpr std::string_view kHybrid =
    "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"
    "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n"
    "33 31 0:30 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:7 - cgroup cgroup rw,memory\n"
    "39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids\n"
    "40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
}

TEST_CASE("a hybrid host gives the v2 tree first and only the v1 hierarchies that limit something") {
  const auto found = parse_cgroup_mounts(kHybrid);
  REQUIRE(found.size() == 4);
  CHECK(found[0].v2);
  CHECK(found[0].mount_point == "/sys/fs/cgroup/unified");
  CHECK(found[1].controllers == std::vector<std::string>{"cpu"});
  CHECK(found[2].mount_point == "/sys/fs/cgroup/memory");
  CHECK(found[3].mount_point == "/sys/fs/cgroup/pids");
}

TEST_CASE("a pure v2 host gives one hierarchy, however often it is mounted") {
  const auto found = parse_cgroup_mounts(
      "28 22 0:25 / /sys/fs/cgroup rw,nosuid shared:4 master:1 - cgroup2 cgroup2 rw,nsdelegate\n"
      "99 22 0:25 / /run/other rw - cgroup2 cgroup2 rw\n");
  REQUIRE(found.size() == 1);
  CHECK(found[0].mount_point == "/sys/fs/cgroup");
}

TEST_CASE("co-mounted v1 controllers are one hierarchy") {
  const auto found = parse_cgroup_mounts("30 24 0:26 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n");
  REQUIRE(found.size() == 1);
  CHECK(found[0].mount_point == "/sys/fs/cgroup/cpu,cpuacct");
}

TEST_CASE("bind mounts of a subtree, other file systems and broken lines are not hierarchies") {
  CHECK(parse_cgroup_mounts("30 24 0:26 /docker/1 /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n").empty());
  CHECK(parse_cgroup_mounts("30 24 0:26 / /mnt rw - ext4 /dev/vda rw\n").empty());
  CHECK(parse_cgroup_mounts("garbage\n\n- - - -\n30 24 0:26 / /x rw -\n").empty());
  CHECK(parse_cgroup_mounts("").empty());
}

TEST_CASE("escaped mount points are unescaped") {
  const auto found = parse_cgroup_mounts("30 24 0:26 / /a\\040b\\134c rw - cgroup2 cgroup2 rw\n");
  REQUIRE(found.size() == 1);
  CHECK(found[0].mount_point == "/a b\\c");
}
