// The one fixed machine that every cell is: QEMU's microvm type with three disks, a network card, an entropy source and
// a serial bus with the control port. Nothing in it depends on the job but memory, processors and the card's address, so
// that one template can serve every job. Pure.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "shim/config.hpp"

namespace cellrund::shim {

// Descriptor numbers inside the VMM.
enum VmmFd : int {
  kVmmQmp = 3,
  kVmmAgent = 4,
  kVmmKernel = 5,
  kVmmInitrd = 6,
  kVmmRootfs = 7,
  kVmmInputs = 8,
  kVmmScratch = 9,
  kVmmTap = 10,
  kVmmOutputs = 11,
};

struct QemuPlan {
  std::string qemu_path;
  std::string name;  // shown in the process list: the task's id
  Accel accel = Accel::kTcg;  // not kAuto
  unsigned vcpus = 1;
  std::uint64_t memory_bytes = 0;
  std::uint64_t tsc_khz = 0;  // of the host; for emulation
  bool has_tap = false;
  bool has_outputs = false;  // somebody reads the outputs port
  std::array<std::uint8_t, 6> mac{};  // all zero: a fixed one
};

[[nodiscard]] std::vector<std::string> qemu_arguments(const QemuPlan& plan);
[[nodiscard]] std::string kernel_command_line(const QemuPlan& plan);

}  // namespace cellrund::shim
