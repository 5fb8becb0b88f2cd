// Whole scans over a /proc that the test writes itself, so that no root and no kernel state is needed. What must be
// readable only as root (BPF ids) makes these verdicts UNKNOWN at best; tests/privileged/residue_planted.cpp has the rest.
#include "residue/scan.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <string>

#include "base/file.hpp"

namespace cellrund::residue {
namespace {

constexpr const char* kUid = "0199c1f2-7b1e-7c3a-9d2e-2f4b6a8c0e11";

// A host in a temporary folder: proc/, run/.
class FakeHost {
 public:
  FakeHost() {
    std::string pattern = "/tmp/residue-unit-XXXXXX";
    REQUIRE(::mkdtemp(pattern.data()) != nullptr);
    root_ = pattern;
    dir("proc/self");
    dir("run/cells");
    dir("run/netns");
    file("proc/self/mountinfo", "22 27 0:21 / /proc rw - proc proc rw\n");
  }
  FakeHost(const FakeHost&) = delete;
  FakeHost& operator=(const FakeHost&) = delete;
  FakeHost(FakeHost&&) = delete;
  FakeHost& operator=(FakeHost&&) = delete;
  ~FakeHost() {
    std::error_code ignored;
    std::filesystem::remove_all(root_ + "/" + std::string(250, 'd'), ignored);  // too deep for paths
    for (int attempt = 0; attempt < 1; ++attempt) {
      std::vector<std::filesystem::path> paths;
      for (const auto& entry : std::filesystem::recursive_directory_iterator(root_, ignored)) {
        paths.push_back(entry.path());
      }
      std::for_each(paths.rbegin(), paths.rend(), [&](const auto& path) { std::filesystem::remove(path, ignored); });
      std::filesystem::remove(root_, ignored);
    }
  }

  void dir(const std::string& path) { REQUIRE(base::make_dirs(root_ + "/" + path, 0755).ok()); }
  void file(const std::string& path, const std::string& content) {
    const auto fd = base::open_file(root_ + "/" + path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    REQUIRE(fd.ok());
    REQUIRE(base::write_all(fd->get(), base::as_bytes(content)).ok());
  }
  void link(const std::string& path, const std::string& target) {
    REQUIRE(::symlink(target.c_str(), (root_ + "/" + path).c_str()) == 0);
  }
  void process(int pid, const std::string& comm, std::uint64_t start, const std::string& net = "net:[1]", int uid = 0) {
    const std::string base = "proc/" + std::to_string(pid);
    dir(base + "/ns");
    dir(base + "/fd");
    file(base + "/stat", std::to_string(pid) + " (" + comm + ") S 1 1 1 0 -1 0 1 0 0 0 0 0 0 0 20 0 1 0 " +
                             std::to_string(start) + " 1 1\n");
    file(base + "/cmdline", comm);
    file(base + "/status", "Name:\t" + comm + "\nUid:\t" + std::to_string(uid) + "\t0\t0\t0\n");
    file(base + "/mountinfo", "22 27 0:21 / /proc rw - proc proc rw\n");
    link(base + "/ns/net", net);
    link(base + "/ns/mnt", "mnt:[2]");
    link(base + "/cwd", "/");
    link(base + "/root", "/");
  }

  // A folder whose path is longer than PATH_MAX.
  [[nodiscard]] base::UniqueFd deep_folder() const {
    const std::string name(250, 'd');
    base::UniqueFd at(::open(root_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    constexpr int kDepth = 20;
    for (int i = 0; i < kDepth; ++i) {
      REQUIRE(::mkdirat(at.get(), name.c_str(), 0755) == 0);
      at.reset(::openat(at.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
      REQUIRE(at);
    }
    return at;
  }

  [[nodiscard]] CellScope scope() const {
    CellScope scope;
    scope.node = {"0a1b2c3d"};
    scope.uid = kUid;
    scope.paths.run_dir = root_ + "/run";
    scope.paths.proc = root_ + "/proc";
    scope.patience = {std::chrono::milliseconds(1), std::chrono::milliseconds(1)};
    return scope;
  }
  [[nodiscard]] const std::string& root() const noexcept { return root_; }

 private:
  std::string root_;
};

model::ResidueReport scan(const CellScope& scope) {
  return scan_cell(scope, base::Deadline::after(std::chrono::seconds(20)));
}

bool has(const model::ResidueReport& report, model::ItemKind kind, const std::string& name) {
  return std::any_of(report.residue.begin(), report.residue.end(), [&](const model::ResidueItem& item) {
    return item.kind == kind && item.name.find(name) != std::string::npos;
  });
}

bool blind(const model::ResidueReport& report, const std::string& probe) {
  return std::any_of(report.unknown.begin(), report.unknown.end(),
                     [&](const model::ResidueUnknown& unknown) { return unknown.probe == probe; });
}

}  // namespace

TEST_CASE("a host without a mounted cgroup hierarchy is UNKNOWN, never CLEAN") {
  const FakeHost host;
  const auto report = scan(host.scope());
  CHECK(report.verdict == model::Verdict::kUnknown);
  CHECK(blind(report, "cgroup"));
  CHECK(report.residue.empty());
}

TEST_CASE("an empty or missing /proc is UNKNOWN in every probe that needs it") {
  const FakeHost host;
  CellScope scope = host.scope();
  scope.paths.proc = host.root() + "/no-proc";
  const auto report = scan(scope);
  CHECK(report.verdict == model::Verdict::kUnknown);
  for (const char* probe : {"process", "mount", "open-file", "netns", "cgroup"}) {
    CHECK_MESSAGE(blind(report, probe), probe);
  }
}

TEST_CASE("a journalled process is found by pid and start time; the same pid reused is not") {
  FakeHost host;
  host.process(100, "qemu-system-x86", 5000);
  CellScope scope = host.scope();
  scope.inventory = {{model::ItemKind::kProcess, "vmm", "100:5000"}};
  CHECK(has(scan(scope), model::ItemKind::kProcess, "vmm"));
  scope.inventory = {{model::ItemKind::kProcess, "vmm", "100:4999"}};
  CHECK(scan(scope).residue.empty());
}

TEST_CASE("a malformed journal entry is UNKNOWN, not ignored") {
  const FakeHost host;
  CellScope scope = host.scope();
  scope.inventory = {{model::ItemKind::kProcess, "vmm", "banana"}, {model::ItemKind::kLink, "cj0a1b2c3d1", "x"},
                     {model::ItemKind::kBpfMap, "m", "x"}};
  const auto report = scan(scope);
  CHECK(blind(report, "process"));
  CHECK(blind(report, "link"));
  CHECK(blind(report, "bpf"));
}

TEST_CASE("containerd objects in the journal without a containerd to ask are UNKNOWN") {
  const FakeHost host;
  CellScope scope = host.scope();
  scope.inventory = {{model::ItemKind::kLease, "cr-0a1b2c3d-" + std::string(kUid), ""}};
  CHECK(blind(scan(scope), "containerd"));
}

TEST_CASE("a containerd that does not answer is UNKNOWN with its socket as the cause") {
  const FakeHost host;
  CellScope scope = host.scope();
  scope.paths.containerd = ContainerdPlace{host.root() + "/c.sock", host.root() + "/cs", host.root() + "/cr", "cellrun",
                                           host.root() + "/s"};
  const auto report = scan(scope);
  CHECK(blind(report, "containerd"));
  CHECK(!blind(report, "bundle"));
}

TEST_CASE("a bundle, also under its hidden name, is found on disk") {
  FakeHost host;
  const std::string marker = "cr-0a1b2c3d-" + std::string(kUid);
  const std::string base = "/io.containerd.runtime.v2.task/cellrun/";
  host.dir("cs" + base + "." + marker);
  host.dir("cr" + base + marker);
  host.dir("cs" + base + marker + "0");
  CellScope scope = host.scope();
  scope.paths.containerd = ContainerdPlace{host.root() + "/c.sock", host.root() + "/cs", host.root() + "/cr", "cellrun",
                                           host.root() + "/s"};
  const auto report = scan(scope);
  CHECK(report.residue.size() == 2);
  CHECK(has(report, model::ItemKind::kFile, "/." + marker));
}

TEST_CASE("the run folder and marker names in the node's folders are found; neighbours are not") {
  FakeHost host;
  host.dir("run/cells/" + std::string(kUid));
  host.dir("run/cells/0199c1f2-7b1e-7c3a-9d2e-2f4b6a8c0e12");
  host.file("run/netns/cr-0a1b2c3d-" + std::string(kUid), "");
  host.file("run/netns/cr-0a1b2c3d-router", "");
  host.file("run/netns/cr-0a1b2c3e-" + std::string(kUid), "");
  const auto report = scan(host.scope());
  CHECK(report.verdict == model::Verdict::kResidue);
  CHECK(report.residue.size() == 2);
  CHECK(has(report, model::ItemKind::kFile, "/cells/"));
  CHECK(has(report, model::ItemKind::kNetns, "cr-0a1b2c3d-"));
}

TEST_CASE("a journalled path whose name does not carry the cell counts only with the journalled identity") {
  FakeHost host;
  host.file("other", "");
  const std::string path = host.root() + "/other";
  const auto id = base::file_id(path);
  REQUIRE(id.ok());
  CellScope scope = host.scope();
  scope.inventory = {{model::ItemKind::kFile, path, std::to_string(id->dev) + ":" + std::to_string(id->ino)}};
  CHECK(has(scan(scope), model::ItemKind::kFile, "/other"));
  scope.inventory = {{model::ItemKind::kFile, path, "1:1"}};
  CHECK(scan(scope).residue.empty());
  scope.inventory = {{model::ItemKind::kFile, path, ""}};
  CHECK(has(scan(scope), model::ItemKind::kFile, "/other"));
}

TEST_CASE("holders of the cell's network namespace are named: members and descriptors") {
  FakeHost host;
  host.process(100, "sleep", 1, "net:[777]");
  host.process(101, "sleep", 2);
  host.link("proc/101/fd/5", "net:[777]");
  host.process(102, "sleep", 3);
  CellScope scope = host.scope();
  scope.inventory = {{model::ItemKind::kNetns, host.root() + "/run/netns/gone", "4:777"}};
  const auto report = scan(scope);
  CHECK(std::count_if(report.residue.begin(), report.residue.end(),
                      [](const auto& item) { return item.kind == model::ItemKind::kNetns; }) == 2);
}

TEST_CASE("a mount in another mount namespace is found by its path, and a foreign one is not") {
  FakeHost host;
  host.process(100, "virtiofsd", 1);
  const std::string marker = "cr-0a1b2c3d-" + std::string(kUid);
  host.file("proc/100/mountinfo", "40 1 0:4 / /x/" + marker + "/rootfs rw - tmpfs t rw\n41 1 0:4 / /x/cr-ffffffff-" +
                                      std::string(kUid) + " rw - tmpfs t rw\n42 1 0:4 / /y rw - overlay o rw,upperdir=/z/" +
                                      marker + "/fs\n");
  const auto report = scan(host.scope());
  CHECK(has(report, model::ItemKind::kMount, "/x/" + marker));
  CHECK(has(report, model::ItemKind::kMount, "/y"));
  CHECK(!has(report, model::ItemKind::kMount, "ffffffff"));
}

TEST_CASE("a malformed mountinfo line is UNKNOWN") {
  FakeHost host;
  host.process(100, "sh", 1);
  host.file("proc/100/mountinfo", "garbage\n");
  CHECK(blind(scan(host.scope()), "mount"));
}

TEST_CASE("open files of the cell are found, deleted ones included; who merely works elsewhere is not") {
  FakeHost host;
  host.process(100, "tail", 1);
  const std::string folder = host.root() + "/run/cells/" + kUid;
  host.link("proc/100/fd/3", folder + "/stdout (deleted)");
  host.link("proc/100/fd/4", "/var/log/" + std::string(kUid));
  host.process(101, "sh", 1);
  const auto report = scan(host.scope());
  CHECK(has(report, model::ItemKind::kFile, "/stdout (deleted)"));
  CHECK(!has(report, model::ItemKind::kFile, "/var/log"));
}

TEST_CASE("a path too long to be read is nobody's, and a journalled file is found behind it") {
  FakeHost host;
  // Only a real /proc says ENAMETOOLONG: a folder deeper than PATH_MAX, held by ourselves.
  const base::UniqueFd deep = host.deep_folder();
  const std::string self = "/proc/self/fd/" + std::to_string(deep.get());
  std::array<char, 8> buffer{};
  REQUIRE(::readlink(self.c_str(), buffer.data(), buffer.size()) < 0);
  REQUIRE(errno == ENAMETOOLONG);
  CellScope scope = host.scope();
  scope.paths.proc = "/proc";
  const auto clean = scan(scope);
  for (const model::ResidueUnknown& unknown : clean.unknown) {
    CHECK_MESSAGE(unknown.cause.find("ENAMETOOLONG") == std::string::npos, unknown.cause);
  }
  const auto id = base::file_id(deep.get());
  REQUIRE(id.ok());
  scope.inventory = {{model::ItemKind::kFile, "/was/here", std::to_string(id->dev) + ":" + std::to_string(id->ino)}};
  CHECK(has(scan(scope), model::ItemKind::kFile, "/was/here"));
}

TEST_CASE("a shim that names the cell is a process of it; an operator's grep is not") {
  FakeHost host;
  const std::string marker = "cr-0a1b2c3d-" + std::string(kUid);
  host.process(100, "shim", 1);
  host.file("proc/100/cmdline", std::string("containerd-shim-cellrun-v2\0-id\0", 31) + marker);
  host.link("proc/100/exe", "/usr/bin/containerd-shim-cellrun-v2 (deleted)");
  host.process(101, "grep", 1);
  host.file("proc/101/cmdline", std::string("grep\0", 5) + marker);
  host.link("proc/101/exe", "/usr/bin/grep");
  const auto report = scan(host.scope());
  CHECK(has(report, model::ItemKind::kProcess, "shim"));
  CHECK(!has(report, model::ItemKind::kProcess, "grep"));
}

TEST_CASE("a bound Unix socket of the cell is found") {
  FakeHost host;
  host.dir("run/cells/" + std::string(kUid));
  const base::UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = host.root() + "/run/cells/" + kUid + "/qmp.sock";
  REQUIRE(path.size() < sizeof address.sun_path);
  std::copy(path.begin(), path.end(), std::begin(address.sun_path));
  REQUIRE(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  CHECK(has(scan(host.scope()), model::ItemKind::kSocket, "qmp.sock"));
}

TEST_CASE("names count from root and from the node's uids, not from anybody else") {
  FakeHost host;
  const std::string marker = "cr-0a1b2c3d-" + std::string(kUid);
  host.process(100, "cell-init", 1, "net:[1]", 1000);
  host.file("proc/100/cmdline", "cell-init " + marker);
  host.link("proc/100/exe", "/tmp/cell-init");
  host.link("proc/100/fd/1", "/tmp/" + marker);
  host.file("proc/100/cgroup", "0::/user.slice/cellrun/0a1b2c3d/" + std::string(kUid) + "\n");
  CellScope scope = host.scope();
  CHECK(scan(scope).residue.empty());
  scope.node_uids = {{2000, 10}, {990, 10}, {1001, 10}};
  CHECK(scan(scope).residue.empty());
  scope.node_uids = {{991, 10}};
  CHECK(has(scan(scope), model::ItemKind::kProcess, "cell-init"));
  CHECK(has(scan(scope), model::ItemKind::kFile, "/tmp/" + marker));

  NodeScope node;
  node.node = scope.node;
  node.paths = scope.paths;
  node.patience = scope.patience;
  CHECK(scan_node(node, base::Deadline::after(std::chrono::seconds(20))).residue.empty());
}

TEST_CASE("a node scan leaves live cells alone and finds the others") {
  FakeHost host;
  host.dir("run/cells/" + std::string(kUid));
  host.dir("run/cells/0199c1f2-7b1e-7c3a-9d2e-2f4b6a8c0e12");
  host.process(100, "sleep", 1);
  host.file("proc/100/cgroup", "0::/cellrun/0a1b2c3d/0199c1f2-7b1e-7c3a-9d2e-2f4b6a8c0e12\n");
  host.process(101, "sleep", 1);
  host.file("proc/101/cgroup", "0::/cellrun/0a1b2c3d/" + std::string(kUid) + "\n");
  NodeScope scope;
  scope.node = {"0a1b2c3d"};
  scope.live = {{kUid, 1, {}}};
  scope.paths = host.scope().paths;
  scope.patience = host.scope().patience;
  const auto report = scan_node(scope, base::Deadline::after(std::chrono::seconds(20)));
  CHECK(has(report, model::ItemKind::kFile, "8c0e12"));
  CHECK(!has(report, model::ItemKind::kFile, "8c0e11"));
  CHECK(std::count_if(report.residue.begin(), report.residue.end(), [](const auto& item) {
          return item.kind == model::ItemKind::kProcess;
        }) == 1);
}

}  // namespace cellrund::residue
