// States, reasons and verdicts: the stable, machine-read vocabulary of a job's life (names: outcome.cpp).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace cellrund::model {

enum class State {
  kAccepted, kQueued, kPreparing, kStarting, kRunning, kStopping, kTearingDown,
  kSucceeded, kFailed, kTimedOut, kCancelled, kLost, kRejected,
};
[[nodiscard]] std::string_view to_string(State state) noexcept;
[[nodiscard]] std::optional<State> parse_state(std::string_view text) noexcept;
[[nodiscard]] bool is_terminal(State state) noexcept;

enum class Reason {
  kNone,
  // Reject
  kSignatureInvalid, kSignerNotTrusted, kSignerRevoked, kExpired, kNotYetValid, kWrongAudience, kReplayed,
  kSchemaInvalid, kUnsupportedField, kPolicyDenied, kImageNotPinned, kImageSignatureInvalid, kImageDigestMismatch,
  kInputsNotFound, kNoCapacity, kNodeDraining, kNodeQuarantined, kKillSwitchEngaged, kLaneUnavailable,
  // Start
  kImageNotFound, kImagePullFailed, kImageInvalid, kInputsInvalid, kInputsDigestMismatch, kCreateContainerError, kVmmStartFailed, kAgentUnreachable,
  kEgressAttachFailed, kEgressUnproven, kStartDeadlineExceeded,
  // Run
  kCompleted, kError, kSignaled, kOomKilledGuest, kOomKilledHost, kDeadlineExceeded, kPidsExhausted,
  kDiskQuotaExceeded, kLogLimitExceeded, kEgressQuotaExceeded, kCancelledByUser, kKilledByOperator, kKillSwitch,
  kVmmCrashed, kShimDied, kRuntimeDied, kDaemonRestarted, kNodeRebooted, kNodeShutdown,
};
[[nodiscard]] std::string_view to_string(Reason reason) noexcept;
[[nodiscard]] std::optional<Reason> parse_reason(std::string_view text) noexcept;

enum class Verdict { kClean, kResidue, kUnknown };
[[nodiscard]] std::string_view to_string(Verdict verdict) noexcept;
[[nodiscard]] std::optional<Verdict> parse_verdict(std::string_view text) noexcept;

// Why a submission is refused: true of the submission, not a failure of ours. Rendered as
// {code, reason, message, hint, retryable, field, uid}.
struct Refusal {
  Reason reason = Reason::kSchemaInvalid;
  std::string message;  // one sentence: object and cause
  std::string hint;     // what to do about it
  std::string field;    // JSON path such as "spec.resources.limits.cpu"; empty when no field is to blame
};

// How a job ended. The first cause wins; nothing overwrites it.
struct Outcome {
  State state = State::kFailed;
  Reason reason = Reason::kNone;
  std::optional<int> exit_code;    // of the workload, a claim of the guest
  std::optional<int> signal;       // that ended the workload
  std::string message;             // for people: what failed, for start and crash reasons
};

// The terminal state that a reason leads to: Completed → Succeeded, DeadlineExceeded → TimedOut,
// CancelledByUser/KilledByOperator/KillSwitch/NodeShutdown → Cancelled, NodeRebooted → Lost, every reject → Rejected,
// else Failed.
[[nodiscard]] State terminal_state(Reason reason) noexcept;

// The exit code of `cellrun submit` (cellrun-exit-codes(7)). `verdict` absent: refused before anything ran.
[[nodiscard]] int exit_code_for(const Outcome& outcome, std::optional<Verdict> verdict) noexcept;

}  // namespace cellrund::model
