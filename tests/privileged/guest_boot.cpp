// Boots the real guest under emulation and runs a command in it: guest-boot ROOTFS.erofs COUNT COMMAND…
//
// Environment: CELLRUN_GUEST_DIR (make-image's output; exit 77 when it is not set or incomplete), CELLRUN_QEMU
// (default /usr/bin/qemu-system-x86_64), CELLRUN_CONSOLE=1 (the guest's console on stderr).
// Prints one line per boot, and fails on the first that does not reach its exit.
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>

#include <cstdio>
#include <cstdlib>

#include "base/file.hpp"
#include "base/process.hpp"
#include "tests/support/cell_driver.hpp"

namespace {

using namespace cellrund;

constexpr int kSkip = 77;

std::string environment(const char* name, const char* otherwise) {
  const char* value = ::secure_getenv(name);
  return value != nullptr ? value : otherwise;
}

struct Setup {
  std::string guest_dir = environment("CELLRUN_GUEST_DIR", "");
  std::string qemu = environment("CELLRUN_QEMU", "/usr/bin/qemu-system-x86_64");
  std::string memory = environment("CELLRUN_MEMORY", "256");
  std::string extra = environment("CELLRUN_APPEND", "");
  bool console = !environment("CELLRUN_CONSOLE", "").empty();
  std::string rootfs;
};

// Both values from the host, or the guest calibrates against emulated timers, which now and then never ends. The cycle
// counter of an emulated CPU runs at 1 GHz (QEMU, cpu_get_tsc without icount), whatever the host's runs at.
std::string kernel_parameters(const Setup& setup) {
  std::string line =
      "panic=-1 reboot=t random.trust_cpu=on ipv6.disable=1 lsm= tsc_early_khz=2600000 lpj=5200000 no_timer_check ";
  line += setup.console ? "console=ttyS0 ignore_loglevel" : "quiet loglevel=0 8250.nr_uarts=0";
  return line + " " + setup.extra;
}

std::vector<std::string> arguments(const Setup& setup) {
  const auto drive = [](const std::string& id, const std::string& file, bool read_only) {
    return "id=" + id + ",file=" + file + ",format=raw,if=none" + (read_only ? ",readonly=on" : "");
  };
  return {setup.qemu, "-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none", "-no-reboot",
          "-action", "panic=exit-failure", "-M", "microvm,acpi=on,isa-serial=" + std::string(setup.console ? "on" : "off"),
          "-cpu", "max", "-accel", "tcg", "-smp", "1", "-m", setup.memory,
          "-global", "virtio-mmio.force-legacy=off",
          "-serial", setup.console ? "stdio" : "none",
          "-kernel", setup.guest_dir + "/vmlinux", "-initrd", setup.guest_dir + "/initrd",
          "-append", kernel_parameters(setup),
          "-drive", drive("root", setup.rootfs, true), "-device", "virtio-blk-device,drive=root",
          "-device", "virtio-rng-device",
          "-chardev", "socket,id=agent,fd=3", "-device", "virtio-serial-device,max_ports=4",
          "-device", "virtserialport,chardev=agent,name=org.cellrun.agent.0,nr=1"};
}

tests::CellRun boot_once(const Setup& setup, const wire::Workload& workload) {
  tests::CellRun failed;
  auto pair = base::make_socket_pair(SOCK_STREAM);
  auto session = wire::HostSession::create(wire::HostSession::Mode::kMicrovm);
  if (!pair.ok() || !session.ok()) {
    failed.failure = "no socket or no session";
    return failed;
  }
  base::SpawnOptions options;
  options.argv = arguments(setup);
  options.fds = {{pair->theirs.get(), 3}};
  if (setup.console) {
    options.fds.emplace_back(2, 1);
  }
  options.fds.emplace_back(2, 2);
  auto qemu = base::spawn(options);
  if (!qemu.ok()) {
    failed.failure = qemu.error().message();
    return failed;
  }
  pair->theirs.reset();
  tests::CellDriver driver(std::move(pair->ours), std::move(session).value());
  tests::CellRun run = driver.run(workload, base::Deadline::after(std::chrono::seconds(60)));
  auto left = qemu->reap(base::Deadline::after(std::chrono::seconds(5)));
  if (!left.ok() || !left->has_value()) {
    (void)qemu->signal(SIGKILL);
    (void)qemu->reap(base::Deadline::after(std::chrono::seconds(5)));
    run.failure += " (the machine did not power off)";
  }
  return run;
}

double milliseconds(base::Nanoseconds ns) { return static_cast<double>(ns.count()) / 1e6; }

}  // namespace

int main(int argc, char** argv) {
  Setup setup;
  if (setup.guest_dir.empty() || !base::exists(setup.guest_dir + "/initrd") || !base::exists(setup.qemu)) {
    std::puts("SKIP: CELLRUN_GUEST_DIR names no guest image, or there is no QEMU");
    return kSkip;
  }
  if (argc < 4) {
    std::puts("usage: guest-boot ROOTFS.erofs COUNT COMMAND…");
    return 64;
  }
  setup.rootfs = argv[1];
  const long count = std::strtol(argv[2], nullptr, 10);
  wire::Workload workload;
  workload.args.assign(argv + 3, argv + argc);
  workload.env = {"PATH=/bin"};
  workload.tmpfs = {{"/tmp", 1 << 20, 01777}};
  for (long i = 1; i <= count; ++i) {
    const tests::CellRun run = boot_once(setup, workload);
    std::printf("%ld: hello %.0f ready %.0f started %.0f output %.0f exit %.0f ms; %s %s %d %s%s\n", i,
                milliseconds(run.to_hello), milliseconds(run.to_ready), milliseconds(run.to_started),
                milliseconds(run.to_output), milliseconds(run.to_exit), run.kernel_release.c_str(),
                run.exit ? std::string(wire::to_string(run.exit->kind)).c_str() : "none", run.exit ? run.exit->value : -1,
                run.exit ? run.exit->message.c_str() : "", run.failure.c_str());
    if (count == 1) {
      std::fwrite(run.out.data(), 1, run.out.size(), stdout);
      std::fwrite(run.err.data(), 1, run.err.size(), stderr);
    }
    std::fflush(stdout);
    if (!run.exit || !run.failure.empty()) {
      return 1;
    }
  }
  return 0;
}
