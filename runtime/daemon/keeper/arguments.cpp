#include "daemon/keeper/arguments.hpp"

#include <charconv>
#include <set>

#include "base/log.hpp"

namespace cellrund::daemon::keeper {
namespace {

base::Error usage(const std::string& message) {
  return base::Error(base::Errc::kInvalidArgument, message);
}

std::string* path_option(Config& config, std::string_view name) {
  if (name == "--run-dir") return &config.run_dir;
  if (name == "--root") return &config.root;
  if (name == "--state") return &config.state;
  if (name == "--socket") return &config.socket;
  if (name == "--containerd") return &config.containerd;
  if (name == "--shim-dir") return &config.shim_dir;
  if (name == "--shim-config") return &config.shim_config;
  return nullptr;
}

}  // namespace

const std::string_view kHelpText =
    R"(Usage: cellrun-keeper --run-dir DIR --root DIR --state DIR --socket PATH --shim-dir DIR [OPTION...]
       cellrun-keeper --stop --run-dir DIR

Starts, adopts and restarts the containerd of one cellrun node. cellrund runs it; it survives cellrund.

  --run-dir DIR        lock, published state, and containerd's configuration and log
  --root DIR           containerd's persistent data
  --state DIR          containerd's running state
  --socket PATH        containerd's gRPC socket
  --containerd PATH    the containerd binary (/usr/bin/containerd)
  --shim-dir DIR       put first in containerd's PATH
  --shim-config PATH   CELLRUN_SHIM_CONFIG of every shim
  --ready-fd N         write one line of JSON there once containerd answers
  --stop               end the keeper of this run folder and its containerd, and wait for both
  --help, --version

Signals: TERM or INT ends containerd, then the keeper. HUP checks now whether containerd answers, and restarts it if not.
Exit codes: 0 ended as asked, or another keeper already serves the same; 1 failed; 64 usage.
)";

base::Result<Invocation> parse_arguments(const std::vector<std::string>& arguments) {
  Invocation out;
  std::set<std::string> seen;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& name = arguments[i];
    if (!seen.insert(name).second) {
      return usage(base::log::quoted(name) + " is given twice");
    }
    if (name == "--help" || name == "--version") {
      out.mode = name == "--help" ? Mode::kHelp : Mode::kVersion;
      return out;
    }
    if (name == "--stop") {
      out.mode = Mode::kStop;
      continue;
    }
    std::string* path = path_option(out.config, name);
    if (path == nullptr && name != "--ready-fd") {
      return usage("unknown option " + base::log::quoted(name));
    }
    if (++i == arguments.size()) {
      return usage(name + " needs a value");
    }
    const std::string& value = arguments[i];
    if (path != nullptr) {
      *path = value;
      continue;
    }
    int fd = -1;
    const auto parsed = std::from_chars(value.data(), value.data() + value.size(), fd);
    if (parsed.ec != std::errc() || parsed.ptr != value.data() + value.size() || fd < 3) {
      return usage("--ready-fd needs a descriptor number above 2");
    }
    out.ready_fd = fd;
  }
  if (out.mode == Mode::kStop) {
    if (out.config.run_dir.empty() || out.config.run_dir.front() != '/') {
      return usage("--stop needs --run-dir with an absolute path");
    }
    return out;
  }
  CR_CHECK(validate(out.config));
  return out;
}

}  // namespace cellrund::daemon::keeper
