// cellrun-keeper: see arguments.cpp for what it does, and docs/ARCHITECTURE.md for why it is a process of its own.
#include <signal.h>

#include <cstdio>

#include "base/file.hpp"
#include "base/log.hpp"
#include "daemon/keeper/arguments.hpp"
#include "daemon/keeper/containerd_process.hpp"
#include "daemon/keeper/keeper.hpp"
#include "daemon/keeper/second.hpp"
#include "daemon/keeper/start.hpp"

namespace {

namespace base = cellrund::base;
namespace keeper = cellrund::daemon::keeper;

constexpr int kExitUsage = 64;
constexpr std::chrono::seconds kStopBudget{45};

base::Status keep(keeper::Invocation invocation) {
  keeper::ReadyReport report{base::UniqueFd(invocation.ready_fd.value_or(-1))};
  if (invocation.ready_fd.has_value()) {
    CR_CHECK(base::set_inherit(*invocation.ready_fd, false));
  }
  auto result = [&]() -> base::Status {
    CR_CHECK(base::make_dirs(invocation.config.run_dir, 0755));
    auto lock = CR_TRY(keeper::acquire_or_follow(invocation.config, report));
    if (!lock.has_value()) {
      return base::ok();  // another keeper serves the same
    }
    auto self = CR_TRY(keeper::Keeper::create(std::move(invocation.config), std::move(*lock), report));
    return self.run();
  }();
  if (!result.ok()) {
    report.failed(result.error());
  }
  return result;
}

}  // namespace

int main(int argc, char** argv) {
  base::log::init("cellrun-keeper", base::log::Level::kInfo);
  (void)::signal(SIGPIPE, SIG_IGN);  // our stderr may belong to a cellrund that has gone
  auto invocation = keeper::parse_arguments(std::vector<std::string>(argv + 1, argv + argc));
  if (!invocation.ok()) {
    (void)std::fprintf(stderr, "cellrun-keeper: %s\n", invocation.error().message().c_str());
    return kExitUsage;
  }
  base::Status result = base::ok();
  switch (invocation->mode) {
    case keeper::Mode::kHelp:
      (void)std::fputs(keeper::kHelpText.data(), stdout);
      return 0;
    case keeper::Mode::kVersion:
      (void)std::puts("cellrun-keeper " CELLRUN_VERSION);
      return 0;
    case keeper::Mode::kStop:
      result = keeper::stop_keeper(invocation->config.run_dir, base::Deadline::after(kStopBudget));
      break;
    case keeper::Mode::kKeep:
      result = keep(std::move(*invocation));
      break;
  }
  if (!result.ok()) {
    (void)std::fprintf(stderr, "cellrun-keeper: %s\n", result.error().message().c_str());
    return 1;
  }
  return 0;
}
