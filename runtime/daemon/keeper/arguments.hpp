// The keeper's command line.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "daemon/keeper/config.hpp"

namespace cellrund::daemon::keeper {

enum class Mode { kKeep, kStop, kHelp, kVersion };

struct Invocation {
  Mode mode = Mode::kKeep;
  Config config;                // for kStop only run_dir is set
  std::optional<int> ready_fd;  // one line of JSON goes there once containerd answers, or the reason why it does not
};

// kInvalidArgument names the option that is unknown, doubled, without a value or missing.
base::Result<Invocation> parse_arguments(const std::vector<std::string>& arguments);

extern const std::string_view kHelpText;

}  // namespace cellrund::daemon::keeper
