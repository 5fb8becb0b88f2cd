// cellrund: the node's daemon. See cellrund(8).
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "base/log.hpp"
#include "daemon/app.hpp"
#include "daemon/config.hpp"
#include "daemon/main_options.hpp"

namespace {

using namespace cellrund;

int fail(const base::Error& error, std::string_view hint) {
  (void)std::fprintf(stderr, "cellrund: %s\nhint: %.*s\n", error.message().c_str(), static_cast<int>(hint.size()), hint.data());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  auto options = daemon::parse_main_options({argv + 1, argv + argc});
  if (!options.ok()) {
    (void)fail(options.error(), "cellrund --help");
    return 64;
  }
  if (options->help) {
    (void)std::fputs(daemon::kMainHelp, stdout);
    return 0;
  }
  if (options->version) {
    (void)std::puts("cellrund " CELLRUN_VERSION);
    return 0;
  }
  if (::geteuid() != 0 && !options->check_config) {
    return fail(base::Error(base::Errc::kPermissionDenied, "needs root: it makes namespaces, cgroups and virtual machines"),
                "systemctl start cellrund, or sudo cellrund");
  }
  auto config = daemon::load_main_config(*options);
  if (!config.ok()) {
    return fail(config.error(), "cellrun config default prints every key with its meaning");
  }
  if (options->check_config) {
    return 0;
  }
  base::log::init("cellrund", daemon::log_level(config->config));
  if (options->remove_node) {
    const auto left = daemon::remove_node(config->config);
    if (!left.ok()) {
      return fail(left.error(), "stop cellrund first; cellsweep lists what is left");
    }
    for (const std::string& failure : *left) {
      (void)std::fprintf(stderr, "cellrund: %s\n", failure.c_str());
    }
    return left->empty() ? 0 : 3;
  }
  // Before the first thread: every thread inherits the mask, so the signals reach only the descriptor in App::run().
  sigset_t ends;
  (void)::sigemptyset(&ends);
  (void)::sigaddset(&ends, SIGTERM);
  (void)::sigaddset(&ends, SIGINT);
  (void)::sigprocmask(SIG_BLOCK, &ends, nullptr);
  (void)::signal(SIGPIPE, SIG_IGN);

  auto app = daemon::App::build(config->config);
  if (!app.ok()) {
    return fail(app.error(), daemon::start_hint(app.error()));
  }
  if (auto status = (*app)->run(); !status.ok()) {
    return fail(status.error(), daemon::start_hint(status.error()));
  }
  return 0;
}
