// cell-init: the one program of a cell that is ours. PID 1 of a microVM's guest (no argument), or of a pid namespace on
// the host (--process).
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <string>
#include <string_view>

#include "base/file.hpp"
#include "shim/guest/agent.hpp"
#include "shim/guest/machine.hpp"
#include "shim/guest/process_lane.hpp"

namespace {

using cellrund::base::Status;
using cellrund::guest::Agent;
using cellrund::guest::Platform;

// Whatever else is open, 0, 1 and 2 are: nothing of ours may end up there. The kernel opens none for PID 1 of a guest
// without a console.
void open_standard_descriptors() {
  int fd = ::open("/dev/null", O_RDWR);  // NOLINT(android-cloexec-open): meant for 0, 1 and 2
  if (fd < 0) {
    fd = ::open("/", O_PATH);  // NOLINT(android-cloexec-open): a guest has no /dev yet
  }
  while (fd >= 0 && fd < 2) {
    fd = ::fcntl(fd, F_DUPFD, 0);
  }
  if (fd > 2) {
    (void)::close(fd);
  }
}

Status serve(Platform& platform) {
  auto channel = platform.open_channel();
  if (!channel.ok()) {
    return std::move(channel).error();
  }
  return Agent(platform, std::move(channel).value()).run();
}

int run(Platform& platform) {
  open_standard_descriptors();
  (void)::signal(SIGPIPE, SIG_IGN);
  // Not traceable, and its memory and descriptors unreadable for the workload's user; children inherit that up to exec.
  (void)::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  const Status served = serve(platform);
  if (!served.ok()) {
    platform.complain("cell-init: " + served.error().message());
  }
  platform.leave(served.ok() ? 0 : 1);
  return 1;  // not reached, but g++ 12 does not believe [[noreturn]] of a virtual function
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::string_view(argv[1]) == "--process") {
    cellrund::guest::ProcessLane lane;
    return run(lane);
  }
  if (::getpid() != 1) {
    constexpr std::string_view kUsage = "cell-init runs as PID 1 of a guest, or with --process\n";
    (void)cellrund::base::write_all(STDERR_FILENO, cellrund::base::as_bytes(kUsage));
    return 64;
  }
  cellrund::guest::Machine machine;
  return run(machine);
}
