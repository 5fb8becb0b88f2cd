#include "tests/support/machine_boot.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "base/file.hpp"
#include "shim/qemu_args.hpp"
#include "shim/tsc.hpp"

namespace cellrund::tests {
namespace {

std::string environment(const char* name, const char* otherwise) {
  const char* value = ::secure_getenv(name);
  return value != nullptr ? value : otherwise;
}

// An empty disk of its own size, so that the guest's view tells one disk from another.
std::string sparse_file(const std::string& name, off_t size) {
  const std::string path = "/tmp/guest-boot-" + std::to_string(::getpid()) + "-" + name;
  const base::UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  return fd && ::ftruncate(fd.get(), size) == 0 ? path : "";
}

base::Nanoseconds cpu_time_of_children() {
  rusage usage{};
  (void)::getrusage(RUSAGE_CHILDREN, &usage);
  const auto of = [](const timeval& t) { return std::chrono::seconds(t.tv_sec) + std::chrono::microseconds(t.tv_usec); };
  return of(usage.ru_utime) + of(usage.ru_stime);
}

std::string drive(const std::string& id, const std::string& file, bool read_only) {
  return "id=" + id + ",file=" + file + ",format=raw,if=none" + (read_only ? ",readonly=on" : "");
}

}  // namespace

std::optional<MachineBoot> MachineBoot::from_environment(std::string rootfs) {
  MachineBoot boot;
  boot.guest_dir_ = environment("CELLRUN_GUEST_DIR", "");
  boot.qemu_ = environment("CELLRUN_QEMU", "/usr/bin/qemu-system-x86_64");
  boot.memory_ = environment("CELLRUN_MEMORY", "256");
  boot.append_ = environment("CELLRUN_APPEND", "");
  boot.console_ = !environment("CELLRUN_CONSOLE", "").empty();
  boot.rootfs_ = std::move(rootfs);
  if (boot.guest_dir_.empty() || !base::exists(boot.guest_dir_ + "/initrd") || !base::exists(boot.qemu_)) {
    std::puts("SKIP: CELLRUN_GUEST_DIR names no guest image, or there is no QEMU");
    return std::nullopt;
  }
  boot.inputs_ = sparse_file("inputs", 32 << 20);
  boot.scratch_ = sparse_file("scratch", 16 << 20);
  return boot;
}

MachineBoot::~MachineBoot() {
  for (const std::string& file : {inputs_, scratch_}) {
    if (!file.empty()) {
      (void)base::remove_file(file);
    }
  }
}

std::vector<std::string> MachineBoot::arguments() const {
  static const std::uint64_t tsc_khz = shim::measure_tsc_khz();
  // The last of two settings counts.
  const std::string parameters = shim::kernel_command_line({.tsc_khz = tsc_khz}) +
                                 (console_ ? " 8250.nr_uarts=1 console=ttyS0 ignore_loglevel " : " ") + append_;
  return {qemu_, "-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none", "-no-reboot",
          "-action", "panic=exit-failure", "-M", "microvm,acpi=on,isa-serial=" + std::string(console_ ? "on" : "off"),
          "-cpu", "max", "-accel", "tcg", "-smp", "1", "-m", memory_, "-global", "virtio-mmio.force-legacy=off",
          "-serial", console_ ? "stdio" : "none", "-kernel", guest_dir_ + "/vmlinux", "-initrd", guest_dir_ + "/initrd",
          "-append", parameters,
          "-drive", drive("root", rootfs_, true), "-device", "virtio-blk-device,drive=root",
          "-drive", drive("inputs", inputs_, true), "-device", "virtio-blk-device,drive=inputs",
          "-drive", drive("scratch", scratch_, false), "-device", "virtio-blk-device,drive=scratch",
          "-netdev", "socket,id=net,udp=127.0.0.1:9,localaddr=127.0.0.1:0", "-device", "virtio-net-device,netdev=net,mac=02:00:00:00:00:01",
          "-device", "virtio-rng-device", "-device", "virtio-serial-device,max_ports=4",
          "-chardev", "socket,id=agent,fd=3", "-device", "virtserialport,chardev=agent,name=org.cellrun.agent.0,nr=1",
          "-chardev", "null,id=outputs", "-device", "virtserialport,chardev=outputs,name=org.cellrun.outputs.0,nr=2"};
}

CellRun MachineBoot::run(const wire::Workload& workload, const std::function<void(CellDriver&)>& prepare) {
  CellRun failed;
  auto pair = base::make_socket_pair(SOCK_STREAM);
  auto session = wire::HostSession::create(wire::HostSession::Mode::kMicrovm);
  if (!pair.ok() || !session.ok()) {
    failed.failure = "no socket or no session";
    return failed;
  }
  const base::Nanoseconds cpu_before = cpu_time_of_children();
  base::SpawnOptions options;
  options.argv = arguments();
  options.fds = {{pair->theirs.get(), 3}, {2, 2}};
  if (console_) {
    options.fds.emplace_back(2, 1);
  }
  auto qemu = base::spawn(options);
  if (!qemu.ok()) {
    failed.failure = qemu.error().message();
    return failed;
  }
  pair->theirs.reset();
  CellDriver driver(std::move(pair->ours), std::move(session).value());
  if (prepare) {
    prepare(driver);
  }
  // Generous: a busy machine emulates ten times slower than an idle one.
  CellRun run = driver.run(workload, base::Deadline::after(std::chrono::seconds(120)));
  auto left = qemu->reap(base::Deadline::after(std::chrono::seconds(30)));
  if (!left.ok() || !left->has_value()) {
    (void)qemu->signal(SIGKILL);
    (void)qemu->reap(base::Deadline::after(std::chrono::seconds(5)));
    run.failure += " (the machine did not power off)";
  }
  cpu_time_ = cpu_time_of_children() - cpu_before;
  return run;
}

}  // namespace cellrund::tests
