#include "shim/qemu_args.hpp"

#include "base/hex.hpp"

namespace cellrund::shim {
namespace {

std::string fd_path(VmmFd fd) { return "/dev/fd/" + std::to_string(fd); }

void add_disk(std::vector<std::string>& args, const char* node, VmmFd fd, bool read_only) {
  const std::string set = std::to_string(fd);
  args.insert(args.end(), {"-add-fd", "fd=" + set + ",set=" + set, "-blockdev",
                           std::string("driver=raw,node-name=") + node + ",read-only=" + (read_only ? "on" : "off") +
                               // Locks would follow the open file, which other cells of the same image share.
                               ",file.driver=file,file.locking=off,file.filename=/dev/fdset/" + set +
                               (read_only ? "" : ",discard=unmap"),
                           "-device", std::string("virtio-blk-device,drive=") + node});
}

std::string mac_text(const std::array<std::uint8_t, 6>& mac) {
  if (mac == std::array<std::uint8_t, 6>{}) {
    return "02:00:00:00:00:01";
  }
  std::string text;
  for (const std::uint8_t byte : mac) {
    const std::string hex = base::to_hex({&byte, 1});
    text += (text.empty() ? "" : ":") + hex;
  }
  return text;
}

}  // namespace

std::string kernel_command_line(const QemuPlan& plan) {
  // No security module of the guest's own, no self-tests of ciphers that nobody uses: a fifth of an emulated boot.
  std::string line =
      "quiet loglevel=0 panic=-1 reboot=t random.trust_cpu=on ipv6.disable=1 lsm= audit=0 cryptomgr.notests i8042.nokbd "
      "i8042.noaux 8250.nr_uarts=0";
  if (plan.accel == Accel::kTcg) {
    // Under emulation the guest's own calibration of its clock fails now and then, and the boot with it. The emulated
    // TSC runs at the host's rate; loops_per_jiffy is TSC cycles per tick at the guest kernel's HZ of 250.
    line += " no_timer_check";
    if (plan.tsc_khz != 0) {
      line += " tsc=reliable tsc_early_khz=" + std::to_string(plan.tsc_khz) +
              " lpj=" + std::to_string(plan.tsc_khz * 1000 / 250);
    }
  }
  return line;
}

std::vector<std::string> qemu_arguments(const QemuPlan& plan) {
  std::vector<std::string> args{
      plan.qemu_path,
      "-name", "guest=" + plan.name + ",debug-threads=on",
      "-nodefaults", "-no-user-config", "-S",
      // Until START a guest that came up wrong may start over; then Machine::commit() makes a reset the machine's end.
      "-action", "reboot=reset",
      "-display", "none", "-monitor", "none", "-serial", "none", "-parallel", "none",
      "-msg", "timestamp=on",
      "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
      // ACPI is how a kernel without virtio-mmio command line devices finds its disks; the timers of a PC are what it
      // calibrates against under emulation.
      "-machine", "microvm,acpi=on,pit=on,pic=on,rtc=on,isa-serial=off,auto-kernel-cmdline=off,"
      // The guest's memory may hold secrets: it is in no core dump, and no other process's pages are merged with it.
      "dump-guest-core=off,mem-merge=off",
      "-global", "virtio-mmio.force-legacy=off",
      // The translation cache would by default grow to a gigabyte.
      "-accel", plan.accel == Accel::kKvm ? "kvm" : "tcg,thread=multi,tb-size=64",
      "-cpu", plan.accel == Accel::kKvm ? "host" : "max",
      "-smp", std::to_string(plan.vcpus),
      "-m", std::to_string(plan.memory_bytes >> 20U) + "M",
      "-kernel", fd_path(kVmmKernel),
      "-initrd", fd_path(kVmmInitrd),
      "-append", kernel_command_line(plan),
      "-chardev", "socket,id=qmp,fd=" + std::to_string(kVmmQmp),
      "-mon", "chardev=qmp,mode=control"};
  add_disk(args, "rootfs", kVmmRootfs, true);
  add_disk(args, "inputs", kVmmInputs, true);
  add_disk(args, "scratch", kVmmScratch, false);
  args.insert(args.end(), {"-netdev",
                           // A hub with one port leads nowhere: the card is there, as in every cell, and connected to nothing.
                           plan.has_tap ? "tap,id=net0,vhost=off,fd=" + std::to_string(kVmmTap) : "hubport,id=net0,hubid=0",
                           "-device", "virtio-net-device,netdev=net0,mac=" + mac_text(plan.mac),
                           "-object", "rng-random,id=rng0,filename=/dev/urandom",
                           "-device", "virtio-rng-device,rng=rng0",
                           "-device", "virtio-serial-device,max_ports=4",
                           "-chardev", "socket,id=agent,fd=" + std::to_string(kVmmAgent),
                           "-device", "virtserialport,nr=1,chardev=agent,name=org.cellrun.agent.0",
                           "-chardev", plan.has_outputs ? "socket,id=outputs,fd=" + std::to_string(kVmmOutputs) : "null,id=outputs",
                           "-device", "virtserialport,nr=2,chardev=outputs,name=org.cellrun.outputs.0"});
  return args;
}

}  // namespace cellrund::shim
