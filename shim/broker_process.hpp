// The broker: root with CAP_KILL and CAP_DAC_READ_SEARCH, a child of the shim that holds what the shim gives up before it reads the guest's first
// byte. It parses nothing of the guest's, and takes the shim for hostile: each request is one bounded datagram, names
// nothing but what the broker was made with, and one that no honest shim sends ends the cell.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/clock.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"
#include "shim/bundle_files.hpp"
#include "shim/cell_group.hpp"
#include "shim/publisher.hpp"
#include "shim/task_events.hpp"

namespace cellrund::shim {

enum class Ask : std::uint32_t {
  kKill = 1,     // the VMM, and whatever else is in its cgroup
  kPublish,      // detail: a Topic; status, seconds, nanos: of an end; text: an exec id
  kOpenFifo,     // detail: 1 for writing too; text: the path of a FIFO of root's. Answered, with the descriptor
  kStarted,      // seconds: boot time of START in ns; text: the guest's kernel release. Once. Answered when cellrun-vm.json is there
  kEnded,        // text: what becomes cellrun-exit.json. Answered
  kRemoveGroup,  // the cgroup, if it is ours. Answered
  kLeave,        // the task is over: what is queued for containerd goes out, then the broker ends
};

struct Request {
  Ask ask = Ask::kKill;
  std::uint32_t detail = 0;
  std::uint32_t status = 0;
  std::int32_t nanos = 0;
  std::int64_t seconds = 0;
};
inline constexpr std::size_t kMaxRequestText = 64UL * 1024;  // follows the request
inline constexpr std::size_t kMaxExecId = 128;

struct Answer {
  std::uint32_t failed = 0;  // 0: done. Else `code` is a base::Errc and the reason follows
  std::uint32_t code = 0;
};
inline constexpr std::size_t kMaxAnswerText = 1024;

struct BrokerDuties {
  int vmm = -1;                      // pidfd
  const CellGroup* group = nullptr;  // may be null
  std::string bundle;
  std::string socket_path;  // the shim's: unlinked at the end
  VmFacts facts;            // all but when it started, its deadline, and the guest's claim
  std::optional<base::Nanoseconds> active_deadline;
  base::Nanoseconds grace{0};
  PublisherOptions publisher;
  EventSource source;
};

// Forks; our end of a SOCK_SEQPACKET pair. A first answer, unasked, says that it is confined and listens. When our end is
// closed, it kills the VMM and ends. Single-threaded callers only.
base::Result<base::UniqueFd> start_broker(const BrokerDuties& duties);

}  // namespace cellrund::shim
