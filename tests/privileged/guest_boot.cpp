// By hand: guest-boot ROOTFS.erofs COUNT COMMAND… boots the guest COUNT times, prints when each stage was reached, and
// stops at the first boot that does not end as it should. With COUNT 1 the command's output is shown.
#include <cstdio>
#include <cstdlib>

#include "tests/support/machine_boot.hpp"

int main(int argc, char** argv) {
  using namespace cellrund;
  if (argc < 4) {
    std::puts("usage: guest-boot ROOTFS.erofs COUNT COMMAND…");
    return 64;
  }
  auto boot = tests::MachineBoot::from_environment(argv[1]);
  if (!boot) {
    return 77;
  }
  const long count = std::strtol(argv[2], nullptr, 10);
  wire::Workload workload;
  workload.args.assign(argv + 3, argv + argc);
  workload.env = {"PATH=/bin"};
  workload.tmpfs = {{"/tmp", 1 << 20, 01777}};
  const auto ms = [](base::Nanoseconds ns) { return static_cast<double>(ns.count()) / 1e6; };
  for (long i = 1; i <= count; ++i) {
    const tests::CellRun run = boot->run(workload);
    std::printf("%ld: hello %.0f ready %.0f started %.0f output %.0f exit %.0f ms, cpu %.0f ms; %s %s %d %s%s\n", i,
                ms(run.to_hello), ms(run.to_ready), ms(run.to_started), ms(run.to_output), ms(run.to_exit),
                ms(boot->cpu_time()), run.kernel_release.c_str(),
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
