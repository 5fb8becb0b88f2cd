// cell-init --process on the real kernel, driven as the daemon drives it. Needs root, mkfs.erofs and a static busybox.
// Everything it makes is a folder below /tmp, which it removes, and namespaces that end with their processes.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "base/file.hpp"
#include "base/process.hpp"
#include "host/clone.hpp"
#include "tests/support/cell_driver.hpp"
#include "tests/support/erofs_images.hpp"

using namespace cellrund;
using namespace std::chrono_literals;
using tests::CellDriver;
using tests::CellRun;

namespace {

constexpr int kSkip = 77;
std::string g_cell_init;
tests::ErofsImages* g_images = nullptr;

// A network namespace with nothing in it but a veth pair whose one end is eth0; made by a thread that ends with it.
base::UniqueFd new_network() {
  base::UniqueFd fd;
  std::thread([&] {
    if (::unshare(CLONE_NEWNET) == 0 &&
        tests::run_quietly({"/sbin/ip", "link", "add", "eth0", "type", "veth", "peer", "name", "peer0"})) {
      fd.reset(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
    }
  }).join();
  return fd;
}

wire::Workload shell(const std::string& script) {
  wire::Workload workload;
  workload.args = {"/bin/sh", "-c", script};
  workload.env = {"PATH=/bin"};
  workload.hostname = "testcell";
  workload.tmpfs = {{"/tmp", 1 << 20, 01777}};
  workload.process = wire::ProcessRoot{4, 5};
  workload.grace_ms = 300;
  return workload;
}

class ProcessCell {
 public:
  explicit ProcessCell(const std::string& image) {
    auto pair = base::make_socket_pair(SOCK_STREAM);
    const base::UniqueFd rootfs(::open(image.c_str(), O_RDONLY | O_CLOEXEC));
    const base::UniqueFd network = new_network();
    host::CloneOptions options;
    options.argv = {g_cell_init, "--process"};
    options.fds = {{pair->theirs.get(), 3}, {rootfs.get(), 4}, {network.get(), 5}};
    options.namespaces = CLONE_NEWPID;
    auto child = host::clone_and_exec(options);
    auto session = wire::HostSession::create(wire::HostSession::Mode::kProcess);
    REQUIRE_MESSAGE(child.ok(), (child.ok() ? "" : child.error().message()));
    REQUIRE(session.ok());
    child_ = std::move(child).value();
    driver = std::make_unique<CellDriver>(std::move(pair->ours), std::move(session).value());
  }
  ~ProcessCell() {
    (void)child_.signal(SIGKILL);
    CHECK(child_.reap(base::Deadline::after(10s)).ok());
  }
  ProcessCell(const ProcessCell&) = delete;
  ProcessCell& operator=(const ProcessCell&) = delete;
  ProcessCell(ProcessCell&&) = delete;
  ProcessCell& operator=(ProcessCell&&) = delete;

  CellRun run(const wire::Workload& workload) {
    CellRun result = driver->run(workload, base::Deadline::after(30s));
    INFO("failure: ", result.failure, " stderr: ", result.err);
    return result;
  }
  // PID 1 of the cell's namespace has exited, so nothing of the cell lives.
  bool gone_within(base::Nanoseconds budget) {
    const auto exited = child_.wait_exit(base::Deadline::after(budget));
    return exited.ok() && *exited;
  }

  std::unique_ptr<CellDriver> driver;

 private:
  base::PidFd child_;
};

CellRun run_cell(const wire::Workload& workload) {
  ProcessCell cell(g_images->plain());
  CellRun result = cell.run(workload);
  CHECK(cell.gone_within(5s));
  return result;
}

void check_ended(const CellRun& run, wire::ExitKind kind, int value) {
  INFO("failure: ", run.failure, " out: ", run.out, " err: ", run.err, " message: ", (run.exit ? run.exit->message : ""));
  REQUIRE(run.exit.has_value());
  CHECK(wire::to_string(run.exit->kind) == wire::to_string(kind));
  CHECK(run.exit->value == value);
}

bool contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

std::string own_namespace(const char* name) {
  char link[64] = {};
  const ssize_t n = ::readlink(("/proc/self/ns/" + std::string(name)).c_str(), link, sizeof(link) - 1);
  return n > 0 ? link : "";
}

}  // namespace

TEST_CASE("exit code and both streams arrive as the workload wrote them") {
  const CellRun run = run_cell(shell("echo out; echo err >&2; exit 7"));
  check_ended(run, wire::ExitKind::kExited, 7);
  CHECK(run.out == "out\n");
  CHECK(run.err == "err\n");
}

TEST_CASE("death by signal is told apart from an exit code") {
  check_ended(run_cell(shell("kill -SEGV $$")), wire::ExitKind::kSignaled, SIGSEGV);
  check_ended(run_cell(shell("exit 139")), wire::ExitKind::kExited, 139);
}

TEST_CASE("a command that is missing is 127, one that cannot be invoked 126") {
  wire::Workload workload = shell("");
  workload.args = {"no-such-command"};
  check_ended(run_cell(workload), wire::ExitKind::kExecFailed, 127);
  workload.args = {"/bin"};
  check_ended(run_cell(workload), wire::ExitKind::kExecFailed, 126);
  workload.args = {"busybox", "true"};  // found by PATH
  check_ended(run_cell(workload), wire::ExitKind::kExited, 0);
}

TEST_CASE("the workload has no privilege and can gain none") {
  wire::Workload workload = shell("busybox cat /proc/self/status; busybox id");
  workload.uid = 61234;
  workload.gid = 61235;
  workload.additional_gids = {61236};
  const CellRun run = run_cell(workload);
  check_ended(run, wire::ExitKind::kExited, 0);
  CHECK(contains(run.out, "Uid:\t61234\t61234\t61234\t61234"));
  CHECK(contains(run.out, "Gid:\t61235\t61235\t61235\t61235"));
  CHECK(contains(run.out, "Groups:\t61236 \n"));
  for (const char* set : {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}) {
    CHECK(contains(run.out, std::string(set) + ":\t0000000000000000"));
  }
  CHECK(contains(run.out, "NoNewPrivs:\t1"));
  CHECK(contains(run.out, "Seccomp:\t2"));
  CHECK(contains(run.out, "SigBlk:\t0000000000000000"));
  CHECK(contains(run.out, "SigIgn:\t0000000000000000"));
}

TEST_CASE("every namespace is the cell's own") {
  const CellRun run = run_cell(shell(
      "for n in pid mnt ipc uts net cgroup; do busybox readlink /proc/self/ns/$n; done; busybox hostname; busybox ps"));
  check_ended(run, wire::ExitKind::kExited, 0);
  for (const char* name : {"pid", "mnt", "ipc", "uts", "net", "cgroup"}) {
    CAPTURE(name);
    CHECK(contains(run.out, std::string(name) + ":["));
    CHECK_FALSE(contains(run.out, own_namespace(name)));
  }
  CHECK(contains(run.out, "testcell\n"));
  CHECK_FALSE(contains(run.out, "guest-process"));  // no process of the host
}

TEST_CASE("no descriptor but stdio, and no way to those of the cell's init") {
  const CellRun run = run_cell(shell("echo /proc/self/fd/*; busybox ls /proc/1/fd; busybox ls /proc/1/root"));
  INFO(run.out, run.err);
  CHECK(contains(run.out, "/proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2"));
  CHECK_FALSE(contains(run.out, "/proc/self/fd/4"));
  CHECK(contains(run.err, "'/proc/1/fd': Permission denied"));
  CHECK(contains(run.err, "/proc/1/root: Permission denied"));
}

TEST_CASE("the root is the image alone, read-only, with the tmpfs that was asked for") {
  const CellRun run = run_cell(shell(
      "busybox ls /; echo x > /x; echo x > /etc/x; echo kept > /tmp/x && busybox cat /tmp/x; "
      "busybox dd if=/dev/zero of=/tmp/big bs=1M count=4; busybox mount -t tmpfs t /tmp; echo 1 > /proc/sys/kernel/panic; "
      "busybox mknod /tmp/n c 1 3; busybox wc -c /proc/kallsyms; busybox ls /dev"));
  CHECK(contains(run.out, "bin\ndev\netc\nproc\nsys\ntmp\n"));
  CHECK(contains(run.err, "can't create /x: Read-only file system"));
  CHECK(contains(run.err, "can't create /etc/x: Read-only file system"));
  CHECK(contains(run.out, "kept\n"));
  CHECK(contains(run.err, "No space left on device"));
  CHECK(contains(run.err, "can't create /proc/sys/kernel/panic: Read-only file system"));
  CHECK(contains(run.err, "mknod: /tmp/n: Operation not permitted"));
  CHECK(contains(run.out, "0 /proc/kallsyms"));
  CHECK_FALSE(contains(run.out, "loop"));
  CHECK_FALSE(contains(run.out, "vda"));
}

TEST_CASE("a writable root keeps to its size; files and working folder are there") {
  wire::Workload workload = shell(
      "busybox pwd; busybox cat /etc/resolv.conf; echo ok > /etc/mine && busybox cat /etc/mine; busybox dd if=/dev/zero of=/big bs=1M count=8");
  workload.read_only_root = false;
  workload.writable_root_bytes = 1 << 20;
  workload.cwd = "/srv/here";
  workload.files = {{"/etc/resolv.conf", 0644, "nameserver 100.64.0.1\n"}};
  const CellRun run = run_cell(workload);
  CHECK(contains(run.out, "/srv/here\nnameserver 100.64.0.1\n"));
  // The image's /etc belongs to root and the workload does not.
  CHECK(contains(run.err, "can't create /etc/mine: Permission denied"));
}

TEST_CASE("the network is what was asked for") {
  wire::Workload workload = shell("busybox ip -o link; busybox ip -o addr; busybox ip route; busybox ip neigh");
  workload.network = wire::NetworkConfig{"eth0", {2, 0, 0, 0, 0, 9}, {100, 64, 0, 3}, 31, {100, 64, 0, 2}, {2, 0, 0, 0, 0, 8}, 1400};
  CellRun run = run_cell(workload);
  check_ended(run, wire::ExitKind::kExited, 0);
  INFO(run.out);
  CHECK(contains(run.out, "inet 127.0.0.1/8"));
  CHECK(contains(run.out, "inet 100.64.0.3/31 scope global"));
  CHECK(contains(run.out, "mtu 1400"));
  CHECK(contains(run.out, "02:00:00:00:00:09"));
  CHECK(contains(run.out, "default via 100.64.0.2 dev eth0"));
  CHECK(contains(run.out, "100.64.0.2 dev eth0 lladdr 02:00:00:00:00:08"));
  CHECK(contains(run.out, "PERMANENT"));
  workload.network->prefix = 32;  // the gateway is then on no network of ours
  run = run_cell(workload);
  CHECK(contains(run.out, "default via 100.64.0.2 dev eth0"));
  workload.network->interface = "eth7";
  run = run_cell(workload);
  check_ended(run, wire::ExitKind::kSetupFailed, 0);
  CHECK(contains(run.exit->message, "eth7"));
}

TEST_CASE("an image whose /proc is a symbolic link is refused") {
  ProcessCell cell(g_images->with_linked_proc());
  const CellRun run = cell.run(shell("true"));
  REQUIRE(run.exit.has_value());
  CHECK(run.exit->kind == wire::ExitKind::kSetupFailed);
  CHECK(contains(run.exit->message, "symbolic link"));
  CHECK_FALSE(run.started);
}

TEST_CASE("administrative system calls are refused by the filter") {
  const CellRun run = run_cell(shell("busybox unshare -U true; busybox dmesg; busybox date -s 2001-01-01"));
  CHECK(contains(run.err, "unshare"));
  CHECK(contains(run.err, "Operation not permitted"));
  CHECK_FALSE(contains(run.err, "not found"));
}

TEST_CASE("TERM reaches a plain program, although it is alone in its namespace") {
  ProcessCell cell(g_images->plain());
  cell.driver->on_started = [](CellDriver& driver) { driver.session().signal(SIGTERM); };
  wire::Workload workload = shell("");
  workload.args = {"busybox", "sleep", "600"};
  check_ended(cell.run(workload), wire::ExitKind::kSignaled, SIGTERM);
}

TEST_CASE("KILL ends everything in the cell, orphans included") {
  ProcessCell cell(g_images->plain());
  cell.driver->on_output = [](CellDriver& driver, const wire::OutputEvent&) {
    driver.session().signal(SIGKILL);
    return true;
  };
  check_ended(cell.run(shell("(busybox setsid busybox sleep 600 &) ; trap '' TERM; echo up; while :; do busybox sleep 60; done")),
              wire::ExitKind::kSignaled, SIGKILL);
  CHECK(cell.gone_within(5s));
}

TEST_CASE("orphans die with the workload and do not hold its output open") {
  const CellRun run = run_cell(shell("(busybox setsid busybox sleep 600 &) ; echo done"));
  check_ended(run, wire::ExitKind::kExited, 0);
  CHECK(run.out == "done\n");
  CHECK_FALSE(run.exit->output_truncated);
}

TEST_CASE("a workload that ignores TERM is killed after the grace, and neither step is early") {
  ProcessCell cell(g_images->plain());
  const base::BootTime deadline = base::BootTime::now() + 500ms;
  cell.driver->deadline_boot_ns = deadline.ns;
  const CellRun run = cell.run(shell("trap '' TERM; while :; do :; done"));
  check_ended(run, wire::ExitKind::kSignaled, SIGKILL);
  CHECK(run.exit->stop_sent_boot_ns >= deadline.ns);
  CHECK(run.exit->kill_sent_boot_ns >= run.exit->stop_sent_boot_ns + base::Nanoseconds(300ms).count());
  CHECK(cell.gone_within(5s));
}

TEST_CASE("a workload that heeds TERM ends in its grace") {
  ProcessCell cell(g_images->plain());
  cell.driver->deadline_boot_ns = (base::BootTime::now() + 300ms).ns;
  wire::Workload workload = shell("trap 'echo bye; exit 3' TERM; while :; do busybox sleep 0.05; done");
  workload.grace_ms = 20000;
  const CellRun run = cell.run(workload);
  check_ended(run, wire::ExitKind::kExited, 3);
  CHECK(run.out == "bye\n");
  CHECK(run.exit->stop_sent_boot_ns > 0);
  CHECK(run.exit->kill_sent_boot_ns == 0);
}

TEST_CASE("the deadline holds with the daemon gone, and the job is not ended before it") {
  ProcessCell cell(g_images->plain());
  const base::BootTime deadline = base::BootTime::now() + 700ms;
  cell.driver->deadline_boot_ns = deadline.ns;
  cell.driver->on_started = [](CellDriver& driver) { driver.hang_up(); };
  const CellRun run = cell.run(shell("trap '' TERM; while :; do busybox sleep 0.05; echo still here; done"));
  CHECK(run.started);
  CHECK_FALSE(run.exit.has_value());
  CHECK(cell.gone_within(20s));
  CHECK(base::BootTime::now() >= deadline + 300ms);
}

TEST_CASE("without a deadline, or before START, a lost daemon ends the cell at once") {
  {
    ProcessCell cell(g_images->plain());
    cell.driver->on_started = [](CellDriver& driver) { driver.hang_up(); };
    (void)cell.run(shell("while :; do busybox sleep 1; done"));
    CHECK(cell.gone_within(10s));
  }
  ProcessCell cell(g_images->plain());
  cell.driver->hang_up();
  CHECK(cell.gone_within(10s));
}

TEST_CASE("a reader that takes nothing stalls the writer, and control still works") {
  ProcessCell cell(g_images->plain());
  std::size_t received = 0;
  cell.driver->on_output = [&](CellDriver& driver, const wire::OutputEvent& event) {
    received += event.data.size();
    if (received >= wire::kOutputWindow) {
      driver.session().signal(SIGKILL);
    }
    return false;
  };
  const CellRun run = cell.run(shell("exec busybox yes"));
  check_ended(run, wire::ExitKind::kSignaled, SIGKILL);
  CHECK(received == wire::kOutputWindow);
  CHECK(run.exit->output_truncated);
}

TEST_CASE("megabytes pass through both ways, byte for byte") {
  ProcessCell cell(g_images->plain());
  std::string input(3 << 20, '\0');
  for (std::size_t i = 0; i < input.size(); ++i) {
    input[i] = static_cast<char>(i * 2654435761U >> 13U);
  }
  cell.driver->stdin_bytes = input;
  const CellRun run = cell.run(shell("exec busybox cat"));
  check_ended(run, wire::ExitKind::kExited, 0);
  CHECK(run.out.size() == input.size());
  CHECK((run.out == input));
}

TEST_CASE("a workload that does not read its input is no obstacle") {
  ProcessCell cell(g_images->plain());
  cell.driver->stdin_bytes = std::string(1 << 20, 'x');
  check_ended(cell.run(shell("exec <&-; busybox sleep 0.1; exit 5")), wire::ExitKind::kExited, 5);
}

int main(int argc, char** argv) {
  // guest-process CELL_INIT [N]: with N, prints N start-up times instead of testing.
  if (argc < 2 || ::geteuid() != 0 || !tests::ErofsImages::possible()) {
    std::puts("SKIP: needs root, mkfs.erofs, a static busybox, and the path of cell-init as its argument");
    return kSkip;
  }
  g_cell_init = argv[1];
  tests::ErofsImages images;
  g_images = &images;
  if (!images.usable()) {
    std::puts("cannot make the test images");
    return 1;
  }
  doctest::Context context;
  if (argc > 2) {
    context.setAsDefaultForAssertsOutOfTestCases();
    for (long i = std::strtol(argv[2], nullptr, 10); i > 0; --i) {
      const base::BootTime begin = base::BootTime::now();
      ProcessCell cell(images.plain());
      const base::Nanoseconds exec = base::BootTime::now() - begin;
      const CellRun run = cell.run(shell("echo hello"));
      (void)cell.gone_within(5s);
      const auto us = [](base::Nanoseconds ns) { return static_cast<long>(ns.count() / 1000); };
      std::printf("exec %ld hello %ld ready %ld started %ld output %ld exit %ld gone %ld us\n", us(exec), us(run.to_hello),
                  us(run.to_ready), us(run.to_started), us(run.to_output), us(run.to_exit),
                  us(base::BootTime::now() - begin));
    }
    return 0;
  }
  return context.run();
}
