// The pure parts around a machine: configuration, QEMU's arguments, QMP, and how an end is told.
#include <doctest/doctest.h>

#include <algorithm>

#include "containerd_shim.pb.h"
#include "shim/bundle_files.hpp"
#include "shim/config.hpp"
#include "shim/metrics.hpp"
#include "shim/qemu_args.hpp"
#include "shim/qmp.hpp"

using namespace cellrund;
using shim::Accel;
using shim::End;
using shim::EndKind;
using shim::Qmp;

namespace {

bool has(const std::vector<std::string>& args, std::string_view flag, std::string_view value) {
  for (std::size_t i = 0; i + 1 < args.size(); ++i) {
    if (args[i] == flag && args[i + 1] == value) {
      return true;
    }
  }
  return false;
}

std::size_t count(const std::vector<std::string>& args, std::string_view prefix) {
  return static_cast<std::size_t>(
      std::count_if(args.begin(), args.end(), [&](const std::string& arg) { return arg.starts_with(prefix); }));
}

}  // namespace

TEST_CASE("a configuration is read, and what it may not say is refused with its place") {
  const auto config = shim::parse_config("qemu = '/q'\naccel = 'kvm'\nuid_range = [70000, 10]\nboot_timeout_seconds = 9\n", "c");
  REQUIRE(config.ok());
  CHECK(config->qemu == "/q");
  CHECK(config->accel == Accel::kKvm);
  CHECK(config->uid_base == 70000);
  CHECK(config->uid_count == 10);
  CHECK(config->boot_timeout == std::chrono::seconds(9));
  for (const char* wrong : {"unheard = 1", "qemu = 'relative'", "accel = 'xen'", "uid_range = [0, 10]", "uid_range = [5]",
                            "boot_timeout_seconds = 0", "boot_timeout_seconds = 1.5", "qemu = ", "state_dir = 7"}) {
    const auto refused = shim::parse_config(wrong, "c");
    CAPTURE(wrong);
    REQUIRE_FALSE(refused.ok());
    CHECK(refused.error().message().starts_with("c: "));
  }
}

TEST_CASE("every machine has the same devices, whatever the job") {
  shim::QemuPlan plan{.qemu_path = "/q", .name = "t1", .accel = Accel::kTcg, .vcpus = 2, .memory_bytes = 300U << 20U};
  plan.tsc_khz = 2'000'000;
  const auto emulated = shim::qemu_arguments(plan);
  plan.accel = Accel::kKvm;
  plan.has_tap = true;
  plan.mac = {2, 0, 0, 0, 0, 0x2a};
  const auto virtualised = shim::qemu_arguments(plan);
  for (const auto& args : {emulated, virtualised}) {
    CHECK(count(args, "virtio-blk-device") == 3);
    CHECK(count(args, "virtio-net-device") == 1);
    CHECK(count(args, "virtio-rng-device") == 1);
    CHECK(count(args, "virtserialport") == 2);
    CHECK(has(args, "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"));
    CHECK(has(args, "-m", "300M"));
    CHECK(has(args, "-smp", "2"));
    CHECK(count(args, "-S") == 1);
  }
  CHECK(has(emulated, "-netdev", "hubport,id=net0,hubid=0"));
  CHECK(has(virtualised, "-netdev", "tap,id=net0,vhost=off,fd=10"));
  CHECK(has(virtualised, "-device", "virtio-net-device,netdev=net0,mac=02:00:00:00:00:2a"));
  plan.accel = Accel::kTcg;
  CHECK(shim::kernel_command_line(plan).find("tsc_early_khz=2000000 lpj=8000000") != std::string::npos);
  plan.accel = Accel::kKvm;
  CHECK(shim::kernel_command_line(plan).find("tsc_early_khz") == std::string::npos);
}

TEST_CASE("QMP goes from greeting to running in step, and nowhere else") {
  Qmp qmp;
  const auto feed = [&](std::string_view text) { return qmp.feed(base::as_bytes(text)); };
  const std::string greeting =
      R"({"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian"}, "capabilities": []}})";
  auto steps = feed(greeting.substr(0, 20));
  REQUIRE(steps.ok());
  CHECK(steps->empty());
  steps = feed(greeting.substr(20) + "\r\n");
  REQUIRE(steps.ok());
  CHECK(*steps == std::vector<Qmp::Step>{Qmp::Step::kGreeted});
  CHECK(qmp.version() == "7.2.22 (Debian)");
  CHECK(qmp.take_output() == "{\"execute\":\"qmp_capabilities\"}\n");
  CHECK(*feed("{\"return\": {}}\r\n") == std::vector<Qmp::Step>{Qmp::Step::kReady});
  qmp.cont();
  CHECK(qmp.take_output() == "{\"execute\":\"cont\"}\n");
  CHECK(*feed("{\"timestamp\": {\"seconds\": 1, \"microseconds\": 2}, \"event\": \"RESUME\"}\r\n{\"return\": {}}\r\n") ==
        std::vector<Qmp::Step>{Qmp::Step::kRunning});
  CHECK(*feed("{\"event\": \"RESET\", \"data\": {\"guest\": true}}\n") == std::vector<Qmp::Step>{Qmp::Step::kRestarted});
  qmp.end_on_reset();
  CHECK(qmp.take_output() == "{\"execute\":\"set-action\",\"arguments\":{\"reboot\":\"shutdown\"}}\n");
  CHECK(*feed("{\"return\": {}}\n") == std::vector<Qmp::Step>{Qmp::Step::kCommitted});
  qmp.stop();
  qmp.resume();
  CHECK(qmp.take_output() == "{\"execute\":\"stop\"}\n{\"execute\":\"cont\"}\n");
  CHECK(*feed("{\"event\": \"STOP\"}\n{\"return\": {}}\n{\"return\": {}}\n") ==
        std::vector<Qmp::Step>{Qmp::Step::kPaused, Qmp::Step::kResumed});
  CHECK_FALSE(feed("{\"return\": {}}\n").ok());

  Qmp refused;
  CHECK_FALSE(refused.feed(base::as_bytes("{\"error\": {\"class\": \"GenericError\"}}\n")).ok());
  Qmp flooded;
  CHECK_FALSE(flooded.feed(base::Bytes(70000, 'x')).ok());
}

TEST_CASE("a load is told in the fields of cgroup v2, and no limit as the kernel's most") {
  shimapi::Metrics metrics;
  REQUIRE(metrics.ParseFromString(shim::encode_metrics(
      {.memory_bytes = 5, .memory_limit_bytes = 0, .cpu_usage_us = 7, .pids = 3, .pids_limit = 64})));
  CHECK(metrics.memory().usage() == 5);
  CHECK(metrics.memory().usage_limit() == UINT64_MAX);
  CHECK(metrics.cpu().usage_usec() == 7);
  CHECK(metrics.pids().current() == 3);
  CHECK(metrics.pids().limit() == 64);
}

TEST_CASE("an end is told to containerd as every other runtime would tell it") {
  CHECK(exit_status(End{.kind = EndKind::kExited, .value = 3}) == 3);
  CHECK(exit_status(End{.kind = EndKind::kSignaled, .value = 15}) == 143);
  CHECK(exit_status(End{.kind = EndKind::kExecFailed, .value = 127}) == 127);
  CHECK(exit_status(End{.kind = EndKind::kVmmDied, .value = 9}) == 137);
  CHECK(exit_status(End{.kind = EndKind::kVmmDied, .value = 0}) == 255);
  CHECK(exit_status(End{.kind = EndKind::kProtocolError}) == 255);
}
