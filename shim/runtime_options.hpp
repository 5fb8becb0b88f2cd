// What containerd tells a shim about its configuration, in the two shapes that it has had.
#pragma once

#include <string>

#include "base/result.hpp"

namespace cellrund::shim {

// The standard input of `start`: nothing, a google.protobuf.Any with the runtime options (1.4 to 2.2), or
// BootstrapParams (2.3 and later). The two messages decode as each other, so it is BootstrapParams only when it names
// this very task. Empty when no configuration path is given.
base::Result<std::string> config_path_from_start_input(const std::string& input, std::string_view id,
                                                       std::string_view containerd_namespace);

// The same from options of one Any (CreateTaskRequest.options). kUnimplemented for another type of options.
base::Result<std::string> config_path_from_options(const std::string& type_url, const std::string& value);

}  // namespace cellrund::shim
