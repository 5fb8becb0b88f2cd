// What a keeper does that is not the first of its run folder.
#pragma once

#include <optional>

#include "base/result.hpp"
#include "daemon/keeper/config.hpp"
#include "daemon/keeper/keeper.hpp"
#include "daemon/keeper/run_folder.hpp"

namespace cellrund::daemon::keeper {

// The lock; or nullopt after another keeper of the same configuration was seen to serve, and that was reported.
// kFailedPrecondition when the other one has another configuration.
base::Result<std::optional<Lock>> acquire_or_follow(const Config& config, ReadyReport& report);

}  // namespace cellrund::daemon::keeper
