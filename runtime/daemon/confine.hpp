// What cellrund takes away from itself before it makes its first thread: capabilities that no step needs, and system calls
// that no thread makes (libseccomp). The filter reaches threads and children alike, so it may only deny what
// the shim, cell-init and boxed helpers do not need either; containerd is a child of the keeper, which was started before.
#pragma once

#include "base/result.hpp"

namespace cellrund::daemon {

// Sets no_new_privs. Capabilities are each thread's own (capabilities(7)), so this comes before the first one is made.
// Fails closed: on an error the daemon must not serve.
base::Status confine();

}  // namespace cellrund::daemon
