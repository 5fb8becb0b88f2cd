// containerd-shim-cellrun-v2: runs each containerd task in a virtual machine of its own.
#include <unistd.h>

#include <span>

#include "base/file.hpp"
#include "shim/command_line.hpp"
#include "shim/shim_delete.hpp"
#include "shim/shim_probe.hpp"
#include "shim/shim_run.hpp"
#include "shim/shim_start.hpp"

namespace {

cellrund::base::Status run(std::span<char* const> args) {
  using cellrund::shim::Action;
  const cellrund::shim::CommandLine line = CR_TRY(cellrund::shim::parse_command_line(args));
  switch (line.action) {
    case Action::kStart: return cellrund::shim::run_start(line);
    case Action::kServe: return cellrund::shim::run_serve(line);
    case Action::kDelete: return cellrund::shim::run_delete(line);
    case Action::kProbe: return cellrund::shim::run_probe(line);
    case Action::kVersion: return cellrund::shim::print_version();
    case Action::kInfo: return cellrund::shim::print_info();
  }
  return cellrund::base::ok();
}

}  // namespace

int main(int argc, char** argv) {
  const cellrund::base::Status status = run({argv, static_cast<std::size_t>(argc)});
  if (!status.ok()) {
    const std::string text = "containerd-shim-cellrun-v2: " + status.error().message() + "\n";
    (void)cellrund::base::write_all(STDERR_FILENO, cellrund::base::as_bytes(text));
    return 1;
  }
  return 0;
}
