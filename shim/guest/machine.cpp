#include "shim/guest/machine.hpp"

#include <fcntl.h>
#include <linux/random.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstring>

#include "base/file.hpp"
#include "shim/guest/modules.hpp"
#include "shim/guest/network.hpp"
#include "shim/guest/paths.hpp"
#include "shim/guest/port.hpp"
#include "shim/guest/timer_check.hpp"
#include "shim/wire/frame.hpp"

namespace cellrund::guest {
namespace {

using base::Error;

constexpr unsigned long kNoFiles = MS_NOSUID | MS_NODEV | MS_NOEXEC;
constexpr auto kPortPatience = std::chrono::seconds(30);
constexpr const char* kCgroups = "/sys/fs/cgroup";
constexpr const char* kCellCgroup = "/sys/fs/cgroup/cell";

// pivot_root(2) refuses the initramfs as the old root, so a tmpfs takes its place first. Returns the initramfs.
base::Result<base::UniqueFd> leave_initramfs() {
  base::UniqueFd initramfs = CR_TRY(base::open_file("/", O_RDONLY | O_DIRECTORY));
  CR_CHECK(base::make_dir("/base", 0755));
  CR_CHECK(mount_at("base", "/base", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=1m"));
  if (::chdir("/base") != 0) {
    return Error::from_errno("chdir to /base");
  }
  CR_CHECK(mount_at(".", "/", "", MS_MOVE, ""));
  if (::chroot(".") != 0) {
    return Error::from_errno("chroot");
  }
  return initramfs;
}

base::Status mount_kernel_filesystems() {
  for (const char* folder : {"/proc", "/sys", "/dev", "/run"}) {
    CR_CHECK(base::make_dir(folder, 0755));
  }
  CR_CHECK(mount_at("proc", "/proc", "proc", kNoFiles, ""));
  CR_CHECK(mount_at("sysfs", "/sys", "sysfs", kNoFiles, ""));
  return mount_at("devtmpfs", "/dev", "devtmpfs", MS_NOSUID | MS_NOEXEC, "");
}

base::Status make_cgroup() {
  CR_CHECK(mount_at("cgroup2", kCgroups, "cgroup2", kNoFiles, ""));
  CR_CHECK(base::write_kernel_file(std::string(kCgroups) + "/cgroup.subtree_control", "+pids +memory"));
  return base::make_dir(kCellCgroup, 0755);
}

// "key value" lines of cgroup v2; 0 when it cannot be read.
std::uint64_t event_count(const std::string& file, std::string_view key) {
  const auto text = base::read_file(std::string(kCellCgroup) + "/" + file, 4096);
  if (!text.ok()) {
    return 0;
  }
  const std::string needle = std::string(key) + " ";
  std::string_view rest = *text;
  while (!rest.empty()) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    if (line.starts_with(needle)) {
      std::uint64_t value = 0;
      (void)std::from_chars(line.data() + needle.size(), line.data() + line.size(), value);
      return value;
    }
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
  }
  return 0;
}

}  // namespace

base::Result<base::UniqueFd> Machine::open_channel() {
  const base::UniqueFd initramfs = CR_TRY(leave_initramfs());
  CR_CHECK(mount_kernel_filesystems());
  CR_CHECK(check_timer_speed());
  PortFinder finder = CR_TRY(PortFinder::create());
  CR_CHECK(load_modules(initramfs.get()));
  // The guest's memory is the workload's; when it runs out, the workload dies and not its keeper.
  CR_CHECK(base::write_kernel_file("/proc/self/oom_score_adj", "-1000"));
  CR_CHECK(make_cgroup());
  CR_CHECK(bring_up_loopback());
  return finder.open(wire::kAgentPortName, base::Deadline::after(kPortPatience));
}

// random(4): credited entropy, then an immediate reseed, so that two machines restored from one template part here.
base::Status Machine::add_entropy(base::BytesView seed) {
  const std::size_t size = std::min(seed.size(), wire::kMaxEntropy);
  // struct rand_pool_info ends in a flexible array: two ints, then the bytes.
  alignas(rand_pool_info) std::array<std::uint8_t, sizeof(rand_pool_info) + wire::kMaxEntropy> pool{};
  const std::array<int, 2> head{static_cast<int>(size * 8), static_cast<int>(size)};
  static_assert(sizeof(head) == sizeof(rand_pool_info));
  std::memcpy(pool.data(), head.data(), sizeof(head));
  std::memcpy(pool.data() + sizeof(head), seed.data(), size);
  const base::UniqueFd random = CR_TRY(base::open_file("/dev/urandom", O_RDWR));
  if (::ioctl(random.get(), RNDADDENTROPY, pool.data()) != 0) {
    return Error::from_errno("add entropy");
  }
  if (::ioctl(random.get(), RNDRESEEDCRNG) != 0) {
    return Error::from_errno("reseed the random generator");
  }
  return base::ok();
}

base::Status Machine::set_clock(std::int64_t realtime_ns) {
  constexpr std::int64_t kSecond = 1'000'000'000;
  const timespec now{realtime_ns / kSecond, realtime_ns % kSecond};
  if (::clock_settime(CLOCK_REALTIME, &now) != 0) {
    return Error::from_errno("set clock");
  }
  return base::ok();
}

base::Status Machine::prepare(const wire::Workload& workload) {
  if (workload.process) {
    return Error(base::Errc::kInvalidArgument, "machine: the workload is for the process lane");
  }
  if (workload.pids_max != 0) {
    // One more for the namespace init, which is ours.
    CR_CHECK(base::write_kernel_file(std::string(kCellCgroup) + "/pids.max", std::to_string(workload.pids_max + 1)));
  }
  cgroup_ = CR_TRY(base::open_file(kCellCgroup, O_RDONLY | O_DIRECTORY));
  return workload.network ? configure_network(*workload.network) : base::ok();
}

base::Result<base::UniqueFd> Machine::open_outputs() {
  PortFinder finder = CR_TRY(PortFinder::create());
  return finder.open(wire::kOutputsPortName, base::Deadline::after(kPortPatience));
}

void Machine::describe_end(wire::Exit& exit) {
  exit.oom_killed = event_count("memory.events", "oom_kill") > 0;
  exit.pids_exhausted = event_count("pids.events", "max") > 0;
}

void Machine::complain(std::string_view line) noexcept {
  const base::UniqueFd log(::open("/dev/kmsg", O_WRONLY | O_CLOEXEC));
  if (log) {
    (void)base::write_all(log.get(), base::as_bytes(line));  // there is nowhere else to say it
  }
}

// After START a reset ends QEMU (shim/machine.hpp, commit()), before it the guest boots again. A guest that is powered off by
// ACPI would need more of the kernel.
void Machine::leave(int) noexcept {
  while (true) {
    (void)::reboot(RB_AUTOBOOT);
  }
}

}  // namespace cellrund::guest
