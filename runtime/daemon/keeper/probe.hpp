// Does containerd serve? A gRPC server opens every connection with an HTTP/2 SETTINGS frame (RFC 9113 section 3.4), so
// the keeper asks for no more than that and needs no gRPC.
#pragma once

#include <sys/types.h>

#include <string>

#include "base/clock.hpp"

namespace cellrund::daemon::keeper {

enum class Answer {
  kServes,  // by the process asked for
  kNobody,  // nothing listens there, or another process does
  kSilent,  // listens, but said nothing sensible before the deadline
};

// `pid` is compared with the listener's (SO_PEERCRED, unix(7)), so that no other program's socket passes for
// containerd's.
[[nodiscard]] Answer probe(const std::string& socket_path, pid_t pid, base::Deadline deadline);

}  // namespace cellrund::daemon::keeper
