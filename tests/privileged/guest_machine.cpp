// The real guest under emulation: what the process lane's test cannot show. Needs CELLRUN_GUEST_DIR (see
// tests/support/machine_boot.hpp), QEMU, mkfs.erofs and a static busybox. A boot takes seconds, so each does much.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>
#include <signal.h>

#include <cstdio>

#include "tests/support/erofs_images.hpp"
#include "tests/support/machine_boot.hpp"

using namespace cellrund;
using tests::CellDriver;
using tests::CellRun;

namespace {

tests::MachineBoot* g_boot = nullptr;

wire::Workload shell(const std::string& script) {
  wire::Workload workload;
  workload.args = {"/bin/sh", "-c", script};
  workload.env = {"PATH=/bin"};
  workload.hostname = "testcell";
  workload.tmpfs = {{"/tmp", 1 << 20, 01777}};
  return workload;
}

void check_ended(const CellRun& run, wire::ExitKind kind, int value) {
  INFO("failure: ", run.failure, " out: ", run.out, " err: ", run.err, " message: ", (run.exit ? run.exit->message : ""));
  REQUIRE(run.exit.has_value());
  CHECK(wire::to_string(run.exit->kind) == wire::to_string(kind));
  CHECK(run.exit->value == value);
  CHECK(run.failure.empty());
}

bool contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("a cell is alone in its machine, unprivileged, with its network set and its clock right") {
  wire::Workload workload = shell(
      "busybox uname -r; busybox date +%s; busybox id; busybox cat /proc/self/status; busybox ls /dev;"
      "busybox ip -o addr; busybox ip -o link; busybox ip route; busybox ip neigh; busybox ps; echo /proc/self/fd/*; echo x > /x; exit 3");
  workload.network = wire::NetworkConfig{"eth0", {2, 0, 0, 0, 0, 1}, {100, 64, 0, 1}, 31, {100, 64, 0, 0}, {2, 0, 0, 0, 0, 2}, 1400};
  const CellRun run = g_boot->run(workload);
  check_ended(run, wire::ExitKind::kExited, 3);
  INFO(run.out, run.err);
  CHECK(contains(run.out, run.kernel_release + "\n"));
  const long now = static_cast<long>(base::WallTime::now().seconds);
  const long guest = std::strtol(run.out.c_str() + run.out.find('\n') + 1, nullptr, 10);
  CHECK(guest > now - 300);
  CHECK(guest <= now + 1);
  CHECK(contains(run.out, "uid=65534 gid=65534"));
  CHECK(contains(run.out, "CapBnd:\t0000000000000000"));
  CHECK(contains(run.out, "NoNewPrivs:\t1"));
  CHECK(contains(run.out, "Seccomp:\t2"));
  CHECK(contains(run.out, "\nurandom\n"));
  for (const char* device : {"vport", "vda", "hvc", "mem\n", "kmsg", "ttyS"}) {
    CAPTURE(device);
    CHECK_FALSE(contains(run.out, device));
  }
  CHECK(contains(run.out, "inet 100.64.0.1/31 scope global"));
  CHECK(contains(run.out, "mtu 1400"));
  CHECK(contains(run.out, "default via 100.64.0.0 dev eth0"));
  CHECK(contains(run.out, "100.64.0.0 dev eth0 lladdr 02:00:00:00:00:02"));
  CHECK(contains(run.out, "PERMANENT"));
  CHECK(contains(run.err, "Read-only file system"));
}

TEST_CASE("TERM reaches a plain program, KILL one that ignores it, and output flows meanwhile") {
  wire::Workload workload = shell("");
  workload.args = {"busybox", "sleep", "600"};
  check_ended(g_boot->run(workload, [](CellDriver& driver) {
    driver.on_started = [](CellDriver& d) { d.session().signal(SIGTERM); };
  }), wire::ExitKind::kSignaled, SIGTERM);
  std::size_t received = 0;
  const CellRun flood = g_boot->run(shell("trap '' TERM; exec busybox yes"), [&](CellDriver& driver) {
    driver.on_output = [&](CellDriver& d, const wire::OutputEvent& event) {
      received += event.data.size();
      if (received > 1 << 20) {
        d.session().signal(SIGKILL);
      }
      return true;
    };
  });
  check_ended(flood, wire::ExitKind::kSignaled, SIGKILL);
}

TEST_CASE("the pids limit holds and is reported") {
  wire::Workload workload = shell("i=0; while [ $i -lt 40 ]; do busybox sleep 60 & i=$((i+1)); done; echo survived; exit 0");
  workload.pids_max = 16;
  const CellRun run = g_boot->run(workload);
  INFO(run.out, run.err, run.failure);
  REQUIRE(run.exit.has_value());
  CHECK(run.exit->pids_exhausted);
  CHECK_FALSE(run.exit->oom_killed);
}

TEST_CASE("memory hogs are killed, their keeper is not, and says so") {
  // Strings that double, in four processes: together more than the machine has before one asks for too much at once.
  const CellRun run = g_boot->run(shell(
      "for i in 1 2 3 4; do busybox awk 'BEGIN { s = \"x\"; while (1) s = s s }' & done; wait; exit 9"));
  check_ended(run, wire::ExitKind::kExited, 9);
  CHECK(run.exit->oom_killed);
}

TEST_CASE("megabytes pass through both ways, byte for byte") {
  std::string input(2 << 20, '\0');
  for (std::size_t i = 0; i < input.size(); ++i) {
    input[i] = static_cast<char>(i * 2654435761U >> 13U);
  }
  const CellRun run = g_boot->run(shell("exec busybox cat"), [&](CellDriver& driver) { driver.stdin_bytes = input; });
  check_ended(run, wire::ExitKind::kExited, 0);
  CHECK((run.out == input));
}

int main(int argc, char** argv) {
  if (!tests::ErofsImages::possible()) {
    std::puts("SKIP: needs mkfs.erofs and a static busybox");
    return 77;
  }
  tests::ErofsImages images;
  auto boot = tests::MachineBoot::from_environment(images.plain());
  if (!images.usable() || !boot) {
    return boot ? 1 : 77;
  }
  g_boot = &*boot;
  doctest::Context context(argc, argv);
  return context.run();
}
