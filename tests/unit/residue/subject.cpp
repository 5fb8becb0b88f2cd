#include "residue/subject.hpp"

#include <doctest/doctest.h>

namespace cellrund::residue {
namespace {

const model::NodeTag kTag{"0a1b2c3d"};
constexpr const char* kUid = "0199c1f2-7b1e-7c3a-9d2e-2f4b6a8c0e11";
constexpr const char* kOther = "0199c1f2-7b1e-7c3a-9d2e-2f4b6a8c0e12";

Subject cell(model::Inventory inventory = {}) {
  CellScope scope;
  scope.node = kTag;
  scope.uid = kUid;
  scope.slot = 1;
  scope.inventory = std::move(inventory);
  return Subject(scope);
}

Subject node(std::vector<LiveCell> live) {
  NodeScope scope;
  scope.node = kTag;
  scope.live = std::move(live);
  return Subject(scope);
}

std::string marker(const std::string& uid) { return "cr-0a1b2c3d-" + uid; }

}  // namespace

TEST_CASE("text: the exact marker is claimed wherever it stands as a word") {
  const Subject subject = cell();
  for (const std::string& text : {marker(kUid), "/run/cellrun/netns/" + marker(kUid), "." + marker(kUid),
                                  "overlay:lowerdir=/x/" + marker(kUid) + "/fs:/y", marker(kUid) + " (deleted)",
                                  "guest=" + marker(kUid) + ",debug-threads=on"}) {
    CHECK_MESSAGE(!subject.why_text(text).empty(), text);
  }
}

TEST_CASE("text: look-alikes are not claimed") {
  const Subject subject = cell();
  for (const std::string& text : {marker(kOther), "cr-0a1b2c3e-" + std::string(kUid), marker(kUid) + "0", "x" + marker(kUid),
                                  "my-" + marker(kUid), std::string(kUid), std::string("cr-0a1b2c3d-router"),
                                  marker(kUid).substr(0, 40), std::string("CR-0A1B2C3D-") + kUid}) {
    CHECK_MESSAGE(subject.why_text(text).empty(), text);
  }
}

TEST_CASE("text: a foreign marker in front does not hide ours behind it") {
  CHECK(!cell().why_text(marker(kOther) + ":" + marker(kUid)).empty());
}

TEST_CASE("paths: the run folder of the cell and nothing beside it") {
  const Subject subject = cell();
  const std::string base = "/run/cellrun/cells/";
  CHECK(!subject.why_path(base + kUid).empty());
  CHECK(!subject.why_path(base + kUid + "/stdout").empty());
  CHECK(!subject.why_path(base + kUid + " (deleted)").empty());
  CHECK(subject.why_path(base + kOther).empty());
  CHECK(subject.why_path(base + kUid + "x").empty());
  CHECK(subject.why_path("/elsewhere/cells/" + std::string(kUid)).empty());
  CHECK(subject.why_path(base).empty());
}

TEST_CASE("folders of the node: what lies below them, not what only begins alike or climbs out") {
  const Subject subject = cell();
  CHECK(subject.in_node_folder("/run/cellrun/cells/x"));
  CHECK(!subject.in_node_folder("/run/cellrun2/x"));
  CHECK(!subject.in_node_folder("/run/cellrun/../../tmp/x"));
  CHECK(!subject.in_node_folder("/run/user/1000/x"));
  CHECK(!subject.in_node_folder("@/run/cellrun/x"));
}

TEST_CASE("cgroups: at any depth, by tag and uid") {
  const Subject subject = cell();
  const std::string path = "/cellrun/0a1b2c3d/" + std::string(kUid);
  CHECK(!subject.why_cgroup("0::" + path).empty());
  CHECK(!subject.why_cgroup("3:cpu:/system.slice/cellrund.service" + path + "/sub").empty());
  CHECK(!subject.why_cgroup("0::" + path + " (deleted)").empty());
  CHECK(subject.why_cgroup("0::/cellrun/0a1b2c3e/" + std::string(kUid)).empty());
  CHECK(subject.why_cgroup("0::/cellrun/0a1b2c3d/" + std::string(kOther)).empty());
  CHECK(subject.why_cgroup("0::/cellrun/0a1b2c3d").empty());
}

TEST_CASE("links and BPF names: the own slot, not one that begins like it") {
  const Subject subject = cell();
  CHECK(subject.why_link("cu0a1b2c3d").empty());  // the uplink is the node's own
  CHECK(!subject.why_link("cj0a1b2c3d1").empty());
  CHECK(subject.why_link("cj0a1b2c3d10").empty());
  CHECK(subject.why_link("cj0a1b2c3d").empty());
  CHECK(subject.why_link("cj0a1b2c3e1").empty());
  CHECK(!subject.why_bpf("cr0a1b2c3d1").empty());
  CHECK(!subject.why_bpf("cr0a1b2c3d1_i").empty());
  CHECK(subject.why_bpf("cr0a1b2c3d10_i").empty());
  CHECK(subject.why_bpf("").empty());
}

TEST_CASE("a node claims every cell that is not live") {
  const Subject subject = node({{kUid, 1, {}}});
  CHECK(subject.why_text(marker(kUid)).empty());
  CHECK(!subject.why_text(marker(kOther)).empty());
  CHECK(subject.why_link("cj0a1b2c3d1").empty());
  CHECK(!subject.why_link("cj0a1b2c3d2").empty());
  CHECK(subject.why_text("cr-0a1b2c3d-router").empty());
  CHECK(subject.why_text("cr-ffffffff-" + std::string(kOther)).empty());
  CHECK(!subject.why_cgroup("/cellrun/0a1b2c3d/" + std::string(kOther)).empty());
}

TEST_CASE("a live cell's journalled objects are never claimed for a dead one of the same names") {
  NodeScope scope;
  scope.node = kTag;
  scope.live = {{kUid, std::nullopt, {{model::ItemKind::kLink, "cj0a1b2c3d1", "5@1:2"}}}};
  scope.inventory = {{model::ItemKind::kLink, "cj0a1b2c3d1", "4@1:2"}};
  const Subject subject(scope);
  CHECK(subject.why_link("cj0a1b2c3d1").empty());
  CHECK(subject.is_live(model::ItemKind::kLink, "5@1:2"));
}

TEST_CASE("identities: exact forms only") {
  CHECK(parse_object_id("4:4026532001")->file == base::FileId{4, 4026532001});
  CHECK(parse_object_id("4:4026532001:77")->cookie == 77U);
  CHECK(!parse_object_id("4:"));
  CHECK(!parse_object_id("4:5:"));
  CHECK(!parse_object_id("4:5:6:7"));
  CHECK(!parse_object_id("-4:5"));
  CHECK(parse_process_id("12:34") == base::ProcessId{12, 34});
  CHECK(!parse_process_id("0:34"));
  CHECK(!parse_process_id("99999999999:34"));
  CHECK(parse_link_id("7@4:5")->ifindex == 7);
  CHECK(!parse_link_id("0@4:5"));
  CHECK(!parse_link_id("7"));
}

TEST_CASE("identities of another boot are forgotten, files on disk are not") {
  CellScope scope;
  scope.node = kTag;
  scope.uid = kUid;
  scope.inventory = {{model::ItemKind::kBpfLink, "x", "12"}, {model::ItemKind::kFile, "/var/x", "1:2"}};
  scope.boot_id = "00000000-0000-0000-0000-000000000000";
  CHECK(Subject(scope).items(model::ItemKind::kBpfLink).front().identity.empty());
  CHECK(Subject(scope).items(model::ItemKind::kFile).front().identity == "1:2");
  scope.boot_id = *base::boot_id();
  CHECK(Subject(scope).items(model::ItemKind::kBpfLink).front().identity == "12");
}

TEST_CASE("journalled paths cover what lies below them and not their neighbours") {
  const Subject subject = cell({{model::ItemKind::kFile, "/tmp/a", "1:2"}});
  CHECK(subject.journalled_path("/tmp/a") != nullptr);
  CHECK(subject.journalled_path("/tmp/a/b") != nullptr);
  CHECK(subject.journalled_path("/tmp/ab") == nullptr);
}

}  // namespace cellrund::residue
