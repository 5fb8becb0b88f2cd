// PID 1 of a guest that resets its machine, in place of cell-init, which it becomes otherwise. The file /reset says
// when:
//   early TICKS    while the time stamp counter is below TICKS; under emulation a reset does not set it back
//   always         at each boot
//   late SECONDS   once, this long after cell-init was started
// On the host, `resetting-init --ticks SECONDS` prints what TICKS is that long.
#include <poll.h>
#include <sys/reboot.h>
#include <unistd.h>
#include <x86intrin.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>

namespace {

[[noreturn]] void reset() {
  while (true) {
    (void)::reboot(RB_AUTOBOOT);
  }
}

int print_ticks(unsigned seconds) {
  constexpr int kSampleMs = 200;
  const auto before = __rdtsc();
  (void)::poll(nullptr, 0, kSampleMs);
  std::printf("%llu\n", (__rdtsc() - before) * 1000 / kSampleMs * seconds);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 3 && std::string(argv[1]) == "--ticks") {
    return print_ticks(static_cast<unsigned>(std::strtoul(argv[2], nullptr, 10)));
  }
  std::ifstream file("/reset");
  std::string when;
  unsigned long long value = 0;
  file >> when >> value;
  if (when == "always" || (when == "early" && __rdtsc() < value)) {
    reset();
  }
  if (when == "late" && ::fork() == 0) {
    (void)::poll(nullptr, 0, static_cast<int>(value) * 1000);
    reset();
  }
  ::execl("/cell-init", "/init", nullptr);
  reset();
}
