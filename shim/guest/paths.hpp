// Making directories, files and mounts below a root that an untrusted image fills: no symbolic link is ever followed.
#pragma once

#include <string>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "shim/wire/workload.hpp"

namespace cellrund::guest {

// mount(2); "" for an argument that does not matter. The error names type and target.
base::Status mount_at(const std::string& source, const std::string& target, const std::string& type,
                      unsigned long flags, const std::string& data);

// An O_PATH descriptor of the directory `path` (absolute, no "..", see wire::validate), whose missing parts are made
// with `mode`. kInvalidArgument when a part is a symbolic link or no directory.
base::Result<base::UniqueFd> open_dir(const std::string& path, unsigned mode);
base::Status ensure_dir(const std::string& path, unsigned mode);

// Replaces whatever file or symbolic link stands at file.path.
base::Status place_file(const wire::FileEntry& file);

}  // namespace cellrund::guest
