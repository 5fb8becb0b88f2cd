// What a restarted daemon does with the cells of its predecessor: it ends every one that the journal knows and seals it
// (DaemonRestarted; NodeRebooted where it began in another boot), before it takes new jobs. It never waits for containerd
// longer than a teardown does.
#pragma once

#include "cell/services.hpp"

namespace cellrund::cell {

struct Recovered {
  std::size_t jobs = 0;
  std::size_t quarantined = 0;
};

base::Result<Recovered> recover(Services& services);

}  // namespace cellrund::cell
