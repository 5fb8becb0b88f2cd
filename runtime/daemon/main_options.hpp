// cellrund's command line, and what it says when it cannot start.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/log.hpp"
#include "base/result.hpp"
#include "daemon/config.hpp"

namespace cellrund::daemon {

struct MainOptions {
  std::string config_file;  // empty: the default path, which may be missing
  bool check_config = false;
  bool remove_node = false;
  bool help = false;
  bool version = false;
};

extern const char* const kMainHelp;

base::Result<MainOptions> parse_main_options(const std::vector<std::string>& arguments);
base::Result<LoadedConfig> load_main_config(const MainOptions& options);
[[nodiscard]] base::log::Level log_level(const Config& config);
// What to do about a start that failed.
[[nodiscard]] std::string_view start_hint(const base::Error& error);

}  // namespace cellrund::daemon
