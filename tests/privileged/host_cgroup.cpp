// Cgroups and births into them on the real kernel. Needs root and a writable cgroup mount.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include "base/file.hpp"
#include "host/cgroup.hpp"
#include "host/clone.hpp"

using namespace cellrund;
using namespace cellrund::host;
using namespace std::chrono_literals;

namespace {

std::string unique_path() {
  return "/cellrun-test-" + std::to_string(::getpid()) + "/group/cell";
}

// Removes the group at the end of a test, also of one that failed half-way.
struct Cleanup {
  const CgroupTree& tree;
  std::string path;
  ~Cleanup() {
    auto left = tree.adopt(path);
    if (left.ok()) {
      CHECK(left->destroy(base::Deadline::after(10s)).empty());
    }
    tree.remove_empty_parents(path);
  }
};

}  // namespace

TEST_CASE("a group is made everywhere, limited, read back, filled, killed and gone") {
  auto tree = CgroupTree::discover();
  REQUIRE(tree.ok());
  const std::string path = unique_path();
  const Cleanup cleanup{*tree, path};
  auto group = tree->create(path, {.memory_bytes = 64ULL << 20U, .pids = 20, .cpu_millis = 500});
  REQUIRE_MESSAGE(group.ok(), (group.ok() ? "" : group.error().message()));
  CHECK(group->enforced().memory_bytes == 64ULL << 20U);
  CHECK(group->enforced().pids == 20);
  CHECK(group->enforced().cpu_millis == 500);
  const model::Inventory items = group->items();
  const model::Inventory intended = tree->intended(path);
  REQUIRE(items.size() == intended.size());
  for (std::size_t i = 0; i < items.size(); ++i) {
    CHECK(items[i].name == intended[i].name);
    CHECK_FALSE(items[i].identity.empty());
    CHECK(base::exists(items[i].name));
  }
  CHECK(tree->create(path, {}).error().code() == base::Errc::kAlreadyExists);
  CHECK(group->members()->empty());

  const auto outside = base::spawn({.argv = {"/bin/sleep", "1000"}});
  REQUIRE(outside.ok());
  const auto first = base::spawn({.argv = {"/bin/sleep", "1000"}});
  REQUIRE(first.ok());
  REQUIRE(group->add(first->id().pid).ok());
  CHECK(group->members()->size() == 1);
  if (tree->has_v2()) {
    const auto folder = group->open_v2();
    REQUIRE(folder.ok());
    const auto second =
        clone_and_exec({.argv = {"/bin/sleep", "1000"},
                        .namespaces = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET,
                        .cgroup_fd = folder->get()});
    REQUIRE_MESSAGE(second.ok(), (second.ok() ? "" : second.error().message()));
    CHECK(group->members()->size() == 2);
    REQUIRE(group->add_v1(second->id().pid).ok());
    CHECK(group->members()->size() == 2);
  }
  const CgroupLoad load = group->load();
  CHECK(load.memory_limit_bytes == 64ULL << 20U);
  CHECK(load.pids_limit == 20);
  CHECK(load.pids >= 1);
  CHECK(group->destroy(base::Deadline::after(10s)).empty());
  CHECK_FALSE(base::is_alive(first->id()));
  CHECK(base::is_alive(outside->id()));
  for (const auto& item : items) {
    CHECK_FALSE(base::exists(item.name));
  }
  CHECK(group->destroy(base::Deadline::after(10s)).empty());  // once more is no failure
  CHECK(tree->adopt(path).error().code() == base::Errc::kNotFound);
  REQUIRE(outside->signal(SIGKILL).ok());
  (void)outside->reap(base::Deadline::after(10s));
  (void)first->reap(base::Deadline::after(10s));
}

TEST_CASE("a fork bomb in a group ends with the group") {
  auto tree = CgroupTree::discover();
  REQUIRE(tree.ok());
  const std::string path = unique_path();
  const Cleanup cleanup{*tree, path};
  auto group = tree->create(path, {.pids = 60});
  REQUIRE(group.ok());
  auto go = base::make_pipe();
  REQUIRE(go.ok());
  const auto bomb = base::spawn({.argv = {"/bin/sh", "-c", "read x; f() { f | f & }; f; sleep 1000"},
                                 .env = {"PATH=/bin:/usr/bin"},
                                 .fds = {{go->read.get(), 0}}});
  REQUIRE(bomb.ok());
  REQUIRE(group->add(bomb->id().pid).ok());
  REQUIRE(base::write_all(go->write.get(), base::as_bytes("go\n")).ok());
  // Until it has hit its limit at least once.
  for (const auto deadline = base::Deadline::after(20s); group->usage().pids_refused == 0 && !deadline.expired();) {
    (void)bomb->wait_exit(base::Deadline::after(5ms));
  }
  CHECK(group->usage().pids_refused > 0);
  CHECK(group->destroy(base::Deadline::after(20s)).empty());
  (void)bomb->reap(base::Deadline::after(10s));
}

TEST_CASE("a directory that only bears the name is left alone and reported") {
  auto tree = CgroupTree::discover();
  REQUIRE(tree.ok());
  const std::string path = unique_path();
  const Cleanup cleanup{*tree, path};
  auto group = tree->create(path, {});
  REQUIRE(group.ok());
  const std::string folder = group->items().front().name;
  REQUIRE(base::remove_dir(folder).ok());
  REQUIRE(base::make_dir(folder, 0755).ok());
  const auto failures = group->destroy(base::Deadline::after(10s));
  REQUIRE(failures.size() == 1);
  CHECK(failures.front().message().find("another one") != std::string::npos);
  CHECK(base::exists(folder));
}

int main(int argc, char** argv) {
  if (::geteuid() != 0) {
    std::fprintf(stderr, "skipped: needs root\n");
    return 77;
  }
  const auto tree = CgroupTree::discover();
  if (!tree.ok() || ::access(tree->hierarchies().front().mount_point.c_str(), W_OK) != 0) {
    std::fprintf(stderr, "skipped: needs a writable cgroup mount\n");
    return 77;
  }
  doctest::Context context(argc, argv);
  return context.run();
}
