// Plants each kind of leftover on this host and expects the scan to name it; plants look-alikes of neighbours and expects
// silence; takes sources of truth away and expects UNKNOWN. Everything is under a node tag and folder of this run.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <thread>

#include "../support/planted_host.hpp"
#include "base/file.hpp"
#include "residue/scan.hpp"

namespace {

using namespace cellrund;
using model::ItemKind;
using model::ResidueReport;
using model::Verdict;
using test::PlantedHost;

constexpr const char* kUid = "0199c1f2-7b1e-7c3a-9d2e-2f4b6a8c0e11";
constexpr const char* kNeighbour = "0199c1f2-7b1e-7c3a-9d2e-2f4b6a8c0e12";

std::string tag_of_this_run() {
  std::array<char, 9> text{};
  (void)std::snprintf(text.data(), text.size(), "%08x", 0xe0000000U | static_cast<unsigned>(::getpid()));
  return text.data();
}

struct Fixture {
  PlantedHost host{tag_of_this_run()};
  residue::CellScope scope;

  Fixture() {
    scope.node = {host.tag()};
    scope.uid = kUid;
    scope.slot = 1;
    scope.paths.run_dir = host.run_dir();
    scope.patience.kernel = std::chrono::milliseconds(300);
    scope.patience.containerd = std::chrono::milliseconds(300);
  }
  [[nodiscard]] std::string marker(const std::string& uid = kUid) const { return "cr-" + host.tag() + "-" + uid; }
  [[nodiscard]] std::string cell_folder() const { return std::string("cells/") + kUid; }
  [[nodiscard]] std::string cgroup_path(const std::string& uid = kUid) const { return "/cellrun/" + host.tag() + "/" + uid; }
  [[nodiscard]] std::string router() const { return host.run_dir() + "/netns/cr-" + host.tag() + "-router"; }
  [[nodiscard]] ResidueReport scan() const {
    return residue::scan_cell(scope, base::Deadline::after(std::chrono::seconds(30)));
  }
  [[nodiscard]] ResidueReport scan_node(std::vector<residue::LiveCell> live = {}) const {
    residue::NodeScope node;
    node.node = scope.node;
    node.live = std::move(live);
    node.inventory = scope.inventory;
    node.node_uids = scope.node_uids;
    node.paths = scope.paths;
    node.patience = scope.patience;
    return residue::scan_node(node, base::Deadline::after(std::chrono::seconds(60)));
  }
};

void print(const ResidueReport& report) {
  for (const auto& item : report.residue) {
    MESSAGE("residue " << std::string(model::to_string(item.kind)) << " " << item.name << " " << item.identity << ": " << item.why);
  }
  for (const auto& unknown : report.unknown) {
    MESSAGE("unknown " << unknown.probe << ": " << unknown.cause);
  }
}

bool has(const ResidueReport& report, ItemKind kind, const std::string& name) {
  return std::any_of(report.residue.begin(), report.residue.end(), [&](const model::ResidueItem& item) {
    return item.kind == kind && item.name.find(name) != std::string::npos;
  });
}

bool blind(const ResidueReport& report, const std::string& probe) {
  return std::any_of(report.unknown.begin(), report.unknown.end(),
                     [&](const model::ResidueUnknown& unknown) { return unknown.probe == probe; });
}

std::string identity(const base::ProcessId& id) { return std::to_string(id.pid) + ":" + std::to_string(id.start_time); }

std::string path_identity(const std::string& path) {
  const auto id = base::file_id(path);
  REQUIRE(id.ok());
  return std::to_string(id->dev) + ":" + std::to_string(id->ino);
}

void expect_clean(const ResidueReport& report) {
  if (report.verdict != Verdict::kClean) {
    print(report);
  }
  CHECK(report.verdict == Verdict::kClean);
}

}  // namespace

TEST_CASE_FIXTURE(Fixture, "a host with nothing of the cell is CLEAN, by both scans") {
  const auto start = std::chrono::steady_clock::now();
  const ResidueReport report = scan();
  const auto took = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  MESSAGE("scan_cell took " << took << " ms");
  expect_clean(report);
  CHECK(report.checks.size() >= 9);
  expect_clean(scan_node());
}

TEST_CASE_FIXTURE(Fixture, "a process in the cell's cgroup, v1 and v2") {
  const std::string v1 = host.cgroup("pids", cgroup_path());
  const std::string v2 = host.cgroup("unified", cgroup_path());
  const base::ProcessId id = host.process();
  host.enter(v1, id);
  for (const ResidueReport& report : {scan(), scan_node()}) {
    CHECK(report.verdict == Verdict::kResidue);
    CHECK(has(report, ItemKind::kProcess, "sleep"));
    CHECK(has(report, ItemKind::kCgroup, v1));
    CHECK(has(report, ItemKind::kCgroup, v2));
  }
  host.kill(id);
}

TEST_CASE_FIXTURE(Fixture, "a journalled process that lives on; its pid under another start time is nobody") {
  const base::ProcessId id = host.process();
  scope.inventory = {{ItemKind::kProcess, "vmm", identity(id)}};
  CHECK(has(scan(), ItemKind::kProcess, "vmm"));
  scope.inventory = {{ItemKind::kProcess, "vmm", std::to_string(id.pid) + ":" + std::to_string(id.start_time + 1)}};
  expect_clean(scan());
}

TEST_CASE_FIXTURE(Fixture, "a zombie that is reaped a little later is 'not yet', not residue") {
  const base::ProcessId id = host.process();
  scope.inventory = {{ItemKind::kProcess, "vmm", identity(id)}};
  scope.patience.kernel = std::chrono::seconds(5);
  host.kill_unreaped(id);
  base::UniqueFd timer = std::move(base::boot_timer(base::BootTime::now() + std::chrono::milliseconds(150))).value();
  std::thread reaper([&] {
    (void)base::wait_readable(timer.get(), base::Deadline::after(std::chrono::seconds(5)));
    host.kill(id);
  });
  expect_clean(scan());
  reaper.join();
}

TEST_CASE_FIXTURE(Fixture, "a network namespace held by a process, a descriptor, a bind mount elsewhere") {
  base::UniqueFd ns = host.network_namespace();
  const std::string ino = path_identity("/proc/self/fd/" + std::to_string(ns.get()));
  for (const bool with_cookie : {true, false}) {
    scope.inventory = {{ItemKind::kNetns, host.run_dir() + "/netns/" + marker(),
                        with_cookie ? test::netns_identity_of(ns.get()) : ino}};
    const base::ProcessId holder = host.process({ns.get()});
    const ResidueReport report = scan();
    CHECK(report.verdict == Verdict::kResidue);
    CHECK(std::any_of(report.residue.begin(), report.residue.end(), [&](const model::ResidueItem& item) {
      return item.kind == ItemKind::kNetns && item.why.find("pid " + std::to_string(holder.pid)) != std::string::npos;
    }));
    host.kill(holder);
  }
  const base::ProcessId elsewhere = host.private_mounts(
      "touch " + host.run_dir() + "/x && mount --bind /proc/" + std::to_string(::getpid()) + "/fd/" +
      std::to_string(ns.get()) + " " + host.run_dir() + "/x");
  ns.reset();
  CHECK(has(scan(), ItemKind::kMount, host.run_dir() + "/x"));
  host.kill(elsewhere);
  scope.patience.kernel = std::chrono::seconds(5);
  expect_clean(scan());
}

TEST_CASE_FIXTURE(Fixture, "a socket alone keeps a network namespace, and the kernel says so") {
  base::UniqueFd ns = host.network_namespace();
  const std::string bound = host.bind_namespace(ns.get(), "scratch");
  scope.inventory = {{ItemKind::kNetns, host.run_dir() + "/netns/" + marker(), test::netns_identity_of(ns.get())}};
  base::Pipe pipe = std::move(base::make_pipe()).value();
  // A process that entered, opened a packet socket and left again cannot be told from /proc by its namespace links.
  const base::ProcessId holder = host.process(
      {pipe.write.get()}, "/usr/bin/python3",
      {"-c", "import os, socket\nhome = os.open('/proc/self/ns/net', 0)\nfd = os.open('" + bound +
                 "', 0)\nimport ctypes\nlibc = ctypes.CDLL(None)\nlibc.setns(fd, 0x40000000)\n"
                 "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\nlibc.setns(home, 0x40000000)\nos.close(fd)\n"
                 "os.write(3, b'ready')\nimport signal\nsignal.pause()"});
  pipe.write.reset();
  REQUIRE(*base::wait_readable(pipe.read.get(), base::Deadline::after(std::chrono::seconds(10))));
  host.unbind(bound);
  ns.reset();
  const ResidueReport report = scan();
  CHECK(has(report, ItemKind::kNetns, marker()));
  host.kill(holder);
  scope.patience.kernel = std::chrono::seconds(5);
  expect_clean(scan());
}

TEST_CASE_FIXTURE(Fixture, "an inode number that a foreign namespace has by now is not the cell's namespace") {
  std::string gone;
  {
    const base::UniqueFd ns = host.network_namespace();
    gone = test::netns_identity_of(ns.get());
  }
  const std::string cookie = gone.substr(gone.rfind(':'));  // which is never reused; the number is, at once
  const base::UniqueFd other = host.network_namespace();
  scope.inventory = {{ItemKind::kNetns, host.run_dir() + "/netns/" + marker(), test::identity_of(other.get()) + cookie}};
  expect_clean(scan());
  // Mounted, it has to be opened to tell. PID 1 has the same mounts and may be closed even to root.
  const std::string bound = host.bind_namespace(other.get(), "another-node");
  expect_clean(scan());
  host.unbind(bound);
}

TEST_CASE_FIXTURE(Fixture, "a veth in the router's namespace, by name and renamed") {
  host.command_in(router(), {"/usr/sbin/ip", "link", "add", "cj" + host.tag() + "1", "type", "veth", "peer", "name", "x0"});
  for (const ResidueReport& report : {scan(), scan_node()}) {
    CHECK(has(report, ItemKind::kLink, "cj" + host.tag() + "1"));
  }
  std::string text;
  {
    const ResidueReport report = scan();
    const auto item = std::find_if(report.residue.begin(), report.residue.end(),
                                   [](const model::ResidueItem& i) { return i.kind == ItemKind::kLink; });
    REQUIRE(item != report.residue.end());
    scope.inventory = {{ItemKind::kLink, "cj" + host.tag() + "1", item->identity}};
  }
  host.command_in(router(), {"/usr/sbin/ip", "link", "set", "cj" + host.tag() + "1", "name", "innocent"});
  CHECK(has(scan(), ItemKind::kLink, "innocent"));
  host.command_in(router(), {"/usr/sbin/ip", "link", "del", "innocent"});
  expect_clean(scan());
}

TEST_CASE_FIXTURE(Fixture, "a bind mount that only another mount namespace has") {
  host.folder("elsewhere");
  host.folder("target-" + marker());
  const base::ProcessId id =
      host.private_mounts("mount --bind " + host.run_dir() + "/elsewhere " + host.run_dir() + "/target-" + marker() +
                          " && mkdir -p " + host.run_dir() + "/cells/" + kUid + "/rootfs && mount -t tmpfs t " +
                          host.run_dir() + "/cells/" + kUid + "/rootfs");
  const ResidueReport report = scan();
  CHECK(has(report, ItemKind::kMount, "/cells/"));
  CHECK(has(scan_node(), ItemKind::kMount, "/cells/"));
  host.kill(id);
}

TEST_CASE_FIXTURE(Fixture, "BPF: a pinned map, and a program that only a process holds") {
  base::UniqueFd map = host.bpf_map("cr" + host.tag() + "1_c");
  host.folder("bpf/" + marker());
  host.pin(map.get(), host.run_dir() + "/bpf/" + marker() + "/map_counters");
  base::UniqueFd program = host.bpf_program("cr" + host.tag() + "1_o");
  const base::ProcessId holder = host.process({program.get()});
  map.reset();
  program.reset();
  for (const ResidueReport& report : {scan(), scan_node()}) {
    CHECK(has(report, ItemKind::kBpfMap, "1_c"));
    CHECK(has(report, ItemKind::kBpfProgram, "1_o"));
    CHECK(has(report, ItemKind::kBpfPin, marker()));
  }
  REQUIRE(base::remove_file(host.run_dir() + "/bpf/" + marker() + "/map_counters").ok());
  REQUIRE(base::remove_dir(host.run_dir() + "/bpf/" + marker()).ok());
  host.kill(holder);
  scope.patience.kernel = std::chrono::seconds(5);
  expect_clean(scan());  // freed by RCU meanwhile
}

TEST_CASE_FIXTURE(Fixture, "BPF: links that neighbours are making meanwhile blind nothing") {
  constexpr int kScans = 50;
  std::atomic<int> made = 0;
  const std::jthread neighbour([&](const std::stop_token& stop) {
    REQUIRE(::unshare(CLONE_NEWNET) == 0);  // this thread's alone
    const base::UniqueFd program = host.bpf_program("someone_else");
    while (!stop.stop_requested()) {
      // A scan that looks at the last one keeps it alive for a moment.
      if (host.bpf_link_to_loopback(program.get()).valid()) {
        ++made;
      }
    }
  });
  while (made == 0) {
    std::this_thread::yield();
  }
  for (int i = 0; i < kScans; ++i) {
    expect_clean(scan());
  }
}

TEST_CASE_FIXTURE(Fixture, "BPF: an unnamed object is found by its journalled id") {
  const base::UniqueFd map = host.bpf_map("");
  scope.inventory = {{ItemKind::kBpfMap, "cr" + host.tag() + "1_c", PlantedHost::bpf_id(map.get())}};
  CHECK(has(scan(), ItemKind::kBpfMap, ""));
}

TEST_CASE_FIXTURE(Fixture, "files, FIFOs, folders and sockets") {
  host.folder(cell_folder());
  host.fifo(cell_folder() + "/stdout");
  const base::UniqueFd socket = host.socket(cell_folder() + "/qmp");
  for (const ResidueReport& report : {scan(), scan_node()}) {
    CHECK(has(report, ItemKind::kFile, kUid));
    CHECK(has(report, ItemKind::kSocket, "/qmp"));
  }
  const std::string elsewhere = host.file("elsewhere.img");
  scope.inventory = {{ItemKind::kFile, elsewhere, path_identity(elsewhere)}};
  CHECK(has(scan(), ItemKind::kFile, "elsewhere.img"));
}

TEST_CASE_FIXTURE(Fixture, "a deleted file that a process still has open") {
  host.folder(cell_folder());
  const std::string path = host.file(cell_folder() + "/scratch");
  base::UniqueFd fd = std::move(base::open_file(path, O_RDWR)).value();
  const base::ProcessId holder = host.process({fd.get()});
  fd.reset();
  REQUIRE(base::remove_file(path).ok());
  REQUIRE(base::remove_dir(host.run_dir() + "/" + cell_folder()).ok());
  const ResidueReport report = scan();
  CHECK(report.verdict == Verdict::kResidue);
  CHECK(has(report, ItemKind::kFile, "/scratch (deleted)"));
  host.kill(holder);
  expect_clean(scan());
}

TEST_CASE_FIXTURE(Fixture, "look-alikes of neighbours are never reported") {
  const std::string other_tag = "f" + host.tag().substr(1);
  for (const std::string& path : {"/cellrun/" + other_tag + "/" + kUid, cgroup_path(kNeighbour), cgroup_path() + "0"}) {
    const std::string folder = host.cgroup("pids", path);
    const base::ProcessId id = host.process();
    host.enter(folder, id);
  }
  for (const std::string& name : {"cj" + host.tag() + "10", "cj" + other_tag + "1", "cj" + host.tag().substr(0, 7)}) {
    host.command_in(router(), {"/usr/sbin/ip", "link", "add", name, "type", "veth", "peer", "name", "p" + name.substr(3)});
  }
  const base::UniqueFd map = host.bpf_map("cr" + host.tag() + "10_c");
  const base::UniqueFd program = host.bpf_program("cr" + other_tag + "1_o");
  const base::UniqueFd ns = host.network_namespace();
  host.bind_namespace(ns.get(), "cr-" + other_tag + "-" + kUid);
  host.bind_namespace(ns.get(), marker(kNeighbour));
  host.folder(std::string("cells/") + kNeighbour);
  host.folder("cells/" + std::string(kUid) + "0");
  const base::UniqueFd socket = host.socket(std::string("cells/") + kNeighbour + "/s");
  (void)host.process({}, "/usr/bin/bash", {"-c", "exec -a " + marker() + " /bin/sleep 3600"});  // an operator who talks about the cell
  expect_clean(scan());
  residue::LiveCell neighbour{kNeighbour, 36, {}};  // slot "10" in base 36
  const ResidueReport node = scan_node({neighbour});
  for (const auto& item : node.residue) {
    CHECK_MESSAGE(item.name.find(std::string(kUid) + "0") != std::string::npos, item.name);
  }
}

TEST_CASE_FIXTURE(Fixture, "names that any user can give are no residue; the same from a uid of the node are") {
  constexpr std::uint32_t kAnybody = 12345;
  std::string open_folder = "/tmp/residue-anybody-XXXXXX";
  REQUIRE(::mkdtemp(open_folder.data()) != nullptr);
  REQUIRE(::chmod(open_folder.c_str(), 0755) == 0);
  const std::string program = open_folder + "/cell-init";
  const std::string named = open_folder + "/" + marker();
  std::filesystem::copy_file("/bin/sleep", program);
  {
    base::UniqueFd fd = std::move(base::open_file(named, O_RDWR | O_CREAT, 0644)).value();
    REQUIRE(::fchown(fd.get(), kAnybody, kAnybody) == 0);
    base::Pipe pipe = std::move(base::make_pipe()).value();
    const auto as_anybody = [&](const std::vector<int>& fds, const std::vector<std::string>& argv) {
      std::vector<std::string> all{"--reuid=" + std::to_string(kAnybody), "--regid=" + std::to_string(kAnybody), "--clear-groups"};
      all.insert(all.end(), argv.begin(), argv.end());
      (void)host.process(fds, "/usr/bin/setpriv", all);
    };
    as_anybody({fd.get()}, {"/bin/sleep", "3600"});
    as_anybody({}, {"/usr/bin/bash", "-c", "exec -a " + marker() + " " + program + " 3600"});
    as_anybody({pipe.write.get()},
               {"/usr/bin/python3", "-c",
                "import os, signal, socket\na = socket.socket(socket.AF_UNIX)\na.bind('\\0" + marker() +
                    "')\nb = socket.socket(socket.AF_UNIX)\nb.bind('\\0\\n0: 0 0 0 0 0 9 " + host.run_dir() + "/" +
                    cell_folder() + "/q')\nos.write(3, b'x')\nsignal.pause()"});
    // In namespaces of their own, where users may make them.
    as_anybody({pipe.write.get()},
               {"/usr/bin/unshare", "--user", "--map-root-user", "--mount", "--net", "/bin/sh", "-c",
                "mount -t tmpfs t /mnt && mkdir /mnt/" + marker() + " && mount -t tmpfs t /mnt/" + marker() +
                    " && /usr/sbin/ip link add cj" + host.tag() + "1 type veth peer name x0 && printf x >&3 && exec /bin/sleep 3600"});
    pipe.write.reset();
    std::array<char, 1> ready{};
    for (int i = 0; i < 2; ++i) {
      REQUIRE(*base::wait_readable(pipe.read.get(), base::Deadline::after(std::chrono::seconds(10))));
      REQUIRE(::read(pipe.read.get(), ready.data(), ready.size()) == 1);
    }
    fd.reset();
    expect_clean(scan());
    expect_clean(scan_node());

    scope.node_uids = {{kAnybody, 1}};
    const ResidueReport report = scan();
    CHECK(has(report, ItemKind::kProcess, "cell-init"));
    CHECK(has(report, ItemKind::kFile, named));
    CHECK(has(report, ItemKind::kSocket, "@" + marker()));
    CHECK(!has(report, ItemKind::kSocket, "/cells/"));
  }
  std::filesystem::remove_all(open_folder);
}

TEST_CASE_FIXTURE(Fixture, "without the right to look the verdict is UNKNOWN, never CLEAN") {
  ResidueReport report;
  std::thread powerless([&] {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    std::array<__user_cap_data_struct, 2> none{};
    if (::syscall(SYS_capset, &header, none.data()) == 0) {  // of this thread only
      report = scan();
    }
  });
  powerless.join();
  CHECK(report.verdict == Verdict::kUnknown);
  CHECK(blind(report, "bpf"));
  CHECK(blind(report, "link"));
}

TEST_CASE_FIXTURE(Fixture, "a cgroup hierarchy hidden by another mount is UNKNOWN") {
  ResidueReport report;
  std::thread elsewhere([&] {
    if (::unshare(CLONE_FS | CLONE_NEWNS) == 0 && ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
        ::mount("t", "/sys/fs/cgroup/pids", "tmpfs", 0, nullptr) == 0) {
      report = scan();
    }
  });
  elsewhere.join();
  CHECK(report.verdict == Verdict::kUnknown);
  CHECK(blind(report, "cgroup"));
}

TEST_CASE_FIXTURE(Fixture, "a passed deadline is UNKNOWN") {
  const ResidueReport report = residue::scan_cell(scope, base::Deadline::after(std::chrono::nanoseconds(0)));
  CHECK(report.verdict == Verdict::kUnknown);
}

int main(int argc, char** argv) {
  if (::geteuid() != 0 || !base::exists("/sys/fs/cgroup/pids") || !base::exists("/sys/fs/cgroup/unified")) {
    std::fprintf(stderr, "skipped: needs root and cgroup hierarchies at /sys/fs/cgroup/{pids,unified}\n");
    return 77;
  }
  return doctest::Context(argc, argv).run();
}
