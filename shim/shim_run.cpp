#include "shim/shim_run.hpp"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <memory>

#include "base/file.hpp"
#include "base/log.hpp"
#include "base/process.hpp"
#include "shim/broker.hpp"
#include "shim/bundle_files.hpp"
#include "shim/children.hpp"
#include "shim/loop.hpp"
#include "shim/shim_start.hpp"
#include "shim/task_service.hpp"
#include "shim/ttrpc/server.hpp"

namespace cellrund::shim {
namespace {

using base::Error;
using base::Result;
using base::Status;

// How long answers on their way may hold up the end, and the broker, which has less for the events.
constexpr std::chrono::seconds kFarewell(4);
constexpr std::chrono::milliseconds kFarewellStep(20);

// containerd made the FIFO `log` in the bundle and reads it (runtime-v2 README, "Logging"). Without a reader, or with a
// dead one, the shim must go on, so writing never blocks and never signals.
void redirect_log() {
  const auto log = base::open_file("log", O_WRONLY | O_NONBLOCK);
  if (log.ok()) {
    (void)::dup2(log->get(), STDERR_FILENO);  // else /dev/null stays
  }
}

Result<base::UniqueFd> termination_signals() {
  sigset_t set;
  (void)::sigemptyset(&set);
  (void)::sigaddset(&set, SIGTERM);
  (void)::sigaddset(&set, SIGINT);
  if (::sigprocmask(SIG_BLOCK, &set, nullptr) != 0) {
    return Error::from_errno("sigprocmask");
  }
  base::UniqueFd fd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd) {
    return Error::from_errno("signalfd");
  }
  return fd;
}

}  // namespace

Status run_serve(const CommandLine& line) {
  (void)::signal(SIGPIPE, SIG_IGN);
  // No core of this process, whatever core_pattern says, and no other user's eyes: it passes secrets on.
  // 1, not 0: a core_pattern that is a pipe ignores 0 (fs/coredump.c).
  const rlimit none{1, 1};
  if (::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0 || ::setrlimit(RLIMIT_CORE, &none) != 0) {
    return Error::from_errno("forbid core dumps");
  }
  redirect_log();
  base::log::init("containerd-shim-cellrun-v2", line.debug ? base::log::Level::kDebug : base::log::Level::kInfo);
  base::UniqueFd listener(kListenerFd);
  CR_CHECK(base::set_inherit(listener.get(), false));

  Loop loop = CR_TRY(Loop::create());
  const std::unique_ptr<Children> children = CR_TRY(Children::create(loop));
  bool ending = false;
  Broker broker(loop, [&ending] {
    if (!ending) {
      // Nothing of this process could end the VMM now, or write down how it ended. `delete` can.
      base::log::error("the broker is gone");
      ::_exit(1);
    }
  });
  const char* ttrpc_address = ::secure_getenv("TTRPC_ADDRESS");
  const std::string socket_path = socket_path_of(line.address, line.containerd_namespace, line.id);
  Task::Env env{.loop = loop,
                .children = *children,
                .self = CR_TRY(self_path()),
                .config_path = line.config,
                .shim = CR_TRY(base::process_id(::getpid())),
                .socket_path = socket_path,
                .publisher = {.ttrpc_address = ttrpc_address == nullptr ? "" : ttrpc_address,
                              .grpc_address = line.address,
                              .publish_binary = line.publish_binary,
                              .containerd_namespace = line.containerd_namespace},
                .broker = broker};

  ttrpc::Server* server_view = nullptr;
  const base::Deadline no_deadline = base::Deadline::after(std::chrono::seconds(0));
  base::Deadline farewell = no_deadline;
  std::unique_ptr<Timer> farewell_timer;
  farewell_timer = CR_TRY(Timer::create(loop, [&] {
    if ((!broker.running() && server_view->flushed()) || farewell.expired()) {
      loop.stop();
    } else {
      (void)farewell_timer->arm_after(kFarewellStep);  // cannot fail for a valid timer
    }
  }));
  TaskService service(line, std::move(env), [&] {
    if (!ending) {
      ending = true;
      farewell = base::Deadline::after(kFarewell);
      broker.leave();
      (void)farewell_timer->arm_after(std::chrono::milliseconds(1));  // cannot fail for a valid timer
    }
  });
  const std::unique_ptr<ttrpc::Server> server = CR_TRY(ttrpc::Server::create(
      loop, std::move(listener),
      [&service](ttrpc::Call call, ttrpc::Reply reply) { service.handle(std::move(call), std::move(reply)); }));
  server_view = server.get();

  const base::UniqueFd signals = CR_TRY(termination_signals());
  CR_CHECK(loop.watch(signals.get(), EPOLLIN, [&](std::uint32_t) {
    signalfd_siginfo ignored{};
    while (::read(signals.get(), &ignored, sizeof(ignored)) == static_cast<ssize_t>(sizeof(ignored))) {
    }
    service.terminate();
  }));
  Status status = loop.run();
  (void)base::remove_file(socket_path);  // a confined shim cannot, and its broker has; `delete` removes it if neither did
  return status;
}

}  // namespace cellrund::shim
