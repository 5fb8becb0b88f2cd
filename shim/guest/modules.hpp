// Loads the kernel modules that the initramfs brings, in the order of its /modules.list (made from modules.dep).
#pragma once

#include "base/result.hpp"

namespace cellrund::guest {

// `initramfs_fd` is a descriptor of the folder that holds modules.list and the files that it names; each file is
// unlinked once loaded, which gives its memory back. A module that is built in or loaded already is no error.
base::Status load_modules(int initramfs_fd);

}  // namespace cellrund::guest
