// Every wait for containerd has a name here. Callers turn them into a Deadline at the place where the wait begins.
#pragma once

#include <chrono>

namespace cellrund::containerd {

// Lookups and records in containerd's database.
inline constexpr std::chrono::seconds kQueryTimeout{10};
// Several fdatasync calls behind one request.
inline constexpr std::chrono::seconds kMutateTimeout{20};
// Lease or image removal with a synchronous collection of what nothing holds any more.
inline constexpr std::chrono::seconds kCollectTimeout{60};
// One blob, either way.
inline constexpr std::chrono::minutes kBlobTimeout{10};
// Tasks.Create runs the shim's start and Create.
inline constexpr std::chrono::seconds kTaskCreateTimeout{60};
// What a Tasks.Create that nobody wants any more still gets: cut off in the middle of the shim's start, containerd 1.6 may
// leave a shim that no record names (runtime/v2/binary.go runs it with the call's own context).
inline constexpr std::chrono::milliseconds kTaskCreateSettle{500};
// Tasks.Start boots the guest, for which the shim has a timeout of its own; this is what everything around it may take.
inline constexpr std::chrono::seconds kTaskStartSlack{30};
inline constexpr std::chrono::seconds kTaskKillTimeout{10};
// What containerd itself is given for Tasks.Delete, whatever the caller's own patience is: a shorter one makes 1.6 leak
// the shim (containerd issues 7496 and 8931).
inline constexpr std::chrono::seconds kTaskDeleteBudget{90};
// From the start of a subscription until its first, own, event came back.
inline constexpr std::chrono::seconds kSubscribeTimeout{10};
// Between two attempts to reconnect, or to take a blob reference that another writer holds.
inline constexpr std::chrono::milliseconds kRetryInterval{200};

}  // namespace cellrund::containerd
