#include "daemon/main_options.hpp"

#include <unistd.h>

namespace cellrund::daemon {

const char* const kMainHelp =
    "usage: cellrund [--config FILE] [--check-config | --remove-node | --version | --help]\n"
    "\n"
    "Runs the node: takes signed jobspecs on its socket and runs each in a disposable cell.\n"
    "\n"
    "  --config FILE    instead of /etc/cellrun/config.toml\n"
    "  --check-config   read and check the configuration, then leave\n"
    "  --remove-node    with no cellrund running: remove the node's network and cgroups, then leave\n"
    "  --version        print the version\n"
    "  --help           print this\n";

base::Result<MainOptions> parse_main_options(const std::vector<std::string>& arguments) {
  MainOptions options;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& a = arguments[i];
    if (a == "--config") {
      if (i + 1 == arguments.size()) {
        return base::Error(base::Errc::kInvalidArgument, "--config needs a file");
      }
      options.config_file = arguments[++i];
    } else if (a == "--check-config") {
      options.check_config = true;
    } else if (a == "--remove-node") {
      options.remove_node = true;
    } else if (a == "--help" || a == "-h") {
      options.help = true;
    } else if (a == "--version") {
      options.version = true;
    } else {
      return base::Error(base::Errc::kInvalidArgument, "unknown option " + base::log::quoted(a));
    }
  }
  return options;
}

base::Result<LoadedConfig> load_main_config(const MainOptions& options) {
  ConfigInput input;
  if (!options.config_file.empty()) {
    input.file = options.config_file;
    input.file_must_exist = true;
  }
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    input.environment.emplace_back(*entry);
  }
  return load_config(input);
}

base::log::Level log_level(const Config& config) {
  if (config.log.level == "debug") {
    return base::log::Level::kDebug;
  }
  if (config.log.level == "warn") {
    return base::log::Level::kWarn;
  }
  return config.log.level == "error" ? base::log::Level::kError : base::log::Level::kInfo;
}

std::string_view start_hint(const base::Error& error) {
  switch (error.code()) {
    case base::Errc::kPermissionDenied: return "cellrund needs root, with CAP_SYS_ADMIN, CAP_NET_ADMIN and CAP_BPF";
    case base::Errc::kNotFound: return "cellrun doctor --pre says what is missing on this host";
    case base::Errc::kUnavailable: return "is another cellrund running? cellrun capacity asks it";
    case base::Errc::kResourceExhausted: return "free disk space or memory, then start again: nothing was lost";
    default: return "cellrun doctor --pre checks this host";
  }
}

}  // namespace cellrund::daemon
