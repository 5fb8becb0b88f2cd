// What a restarted daemon does with the cells of its predecessor: it ends every one that the journal knows and seals it
// (DaemonRestarted; NodeRebooted when the boot id changed), before it takes new jobs. It never waits for containerd
// longer than a teardown does.
#pragma once

#include "cell/services.hpp"

namespace cellrund::cell {

struct Recovered {
  std::size_t jobs = 0;
  std::size_t quarantined = 0;
};

// `rebooted`: the ledger was last used under another boot id, so nothing of the kernel's state is left.
base::Result<Recovered> recover(Services& services, bool rebooted);

}  // namespace cellrund::cell
