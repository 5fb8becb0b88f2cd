#include "model/outcome.hpp"

#include <array>
#include <utility>

namespace cellrund::model {
namespace {

template <typename E, std::size_t N>
using Names = std::array<std::pair<E, std::string_view>, N>;

constexpr Names<State, 13> kStates{{
    {State::kAccepted, "ACCEPTED"}, {State::kQueued, "QUEUED"}, {State::kPreparing, "PREPARING"},
    {State::kStarting, "STARTING"}, {State::kRunning, "RUNNING"}, {State::kStopping, "STOPPING"},
    {State::kTearingDown, "TEARING_DOWN"}, {State::kSucceeded, "SUCCEEDED"}, {State::kFailed, "FAILED"},
    {State::kTimedOut, "TIMED_OUT"}, {State::kCancelled, "CANCELLED"}, {State::kLost, "LOST"},
    {State::kRejected, "REJECTED"},
}};

constexpr Names<Reason, 50> kReasons{{
    {Reason::kNone, ""},
    {Reason::kSignatureInvalid, "SignatureInvalid"}, {Reason::kSignerNotTrusted, "SignerNotTrusted"},
    {Reason::kSignerRevoked, "SignerRevoked"}, {Reason::kExpired, "Expired"}, {Reason::kNotYetValid, "NotYetValid"},
    {Reason::kWrongAudience, "WrongAudience"}, {Reason::kReplayed, "Replayed"},
    {Reason::kSchemaInvalid, "SchemaInvalid"}, {Reason::kUnsupportedField, "UnsupportedField"},
    {Reason::kPolicyDenied, "PolicyDenied"}, {Reason::kImageNotPinned, "ImageNotPinned"},
    {Reason::kImageSignatureInvalid, "ImageSignatureInvalid"}, {Reason::kImageDigestMismatch, "ImageDigestMismatch"},
    {Reason::kInputsNotFound, "InputsNotFound"},
    {Reason::kNoCapacity, "NoCapacity"}, {Reason::kNodeDraining, "NodeDraining"},
    {Reason::kNodeQuarantined, "NodeQuarantined"}, {Reason::kKillSwitchEngaged, "KillSwitchEngaged"},
    {Reason::kLaneUnavailable, "LaneUnavailable"},
    {Reason::kImageNotFound, "ImageNotFound"}, {Reason::kImagePullFailed, "ImagePullFailed"},
    {Reason::kImageInvalid, "ImageInvalid"}, {Reason::kInputsInvalid, "InputsInvalid"},
    {Reason::kInputsDigestMismatch, "InputsDigestMismatch"}, {Reason::kCreateContainerError, "CreateContainerError"},
    {Reason::kVmmStartFailed, "VmmStartFailed"}, {Reason::kAgentUnreachable, "AgentUnreachable"},
    {Reason::kEgressAttachFailed, "EgressAttachFailed"}, {Reason::kEgressUnproven, "EgressUnproven"},
    {Reason::kStartDeadlineExceeded, "StartDeadlineExceeded"},
    {Reason::kCompleted, "Completed"}, {Reason::kError, "Error"}, {Reason::kSignaled, "Signaled"},
    {Reason::kOomKilledGuest, "OOMKilledGuest"}, {Reason::kOomKilledHost, "OOMKilledHost"},
    {Reason::kDeadlineExceeded, "DeadlineExceeded"}, {Reason::kPidsExhausted, "PidsExhausted"},
    {Reason::kDiskQuotaExceeded, "DiskQuotaExceeded"}, {Reason::kLogLimitExceeded, "LogLimitExceeded"},
    {Reason::kEgressQuotaExceeded, "EgressQuotaExceeded"}, {Reason::kCancelledByUser, "CancelledByUser"},
    {Reason::kKilledByOperator, "KilledByOperator"}, {Reason::kKillSwitch, "KillSwitch"},
    {Reason::kVmmCrashed, "VmmCrashed"}, {Reason::kShimDied, "ShimDied"}, {Reason::kRuntimeDied, "RuntimeDied"},
    {Reason::kDaemonRestarted, "DaemonRestarted"}, {Reason::kNodeRebooted, "NodeRebooted"},
    {Reason::kNodeShutdown, "NodeShutdown"},
}};

constexpr Names<Verdict, 3> kVerdicts{{
    {Verdict::kClean, "CLEAN"}, {Verdict::kResidue, "RESIDUE"}, {Verdict::kUnknown, "UNKNOWN"},
}};

template <typename E, std::size_t N>
std::string_view name_of(const Names<E, N>& names, E value) noexcept {
  for (const auto& [v, name] : names) {
    if (v == value) {
      return name;
    }
  }
  return "";
}

template <typename E, std::size_t N>
std::optional<E> value_of(const Names<E, N>& names, std::string_view text) noexcept {
  for (const auto& [v, name] : names) {
    if (name == text) {
      return v;
    }
  }
  return std::nullopt;
}

}  // namespace

std::string_view to_string(State state) noexcept { return name_of(kStates, state); }
std::optional<State> parse_state(std::string_view text) noexcept { return value_of(kStates, text); }
std::string_view to_string(Reason reason) noexcept { return name_of(kReasons, reason); }
std::optional<Reason> parse_reason(std::string_view text) noexcept { return value_of(kReasons, text); }
std::string_view to_string(Verdict verdict) noexcept { return name_of(kVerdicts, verdict); }
std::optional<Verdict> parse_verdict(std::string_view text) noexcept { return value_of(kVerdicts, text); }

bool is_terminal(State state) noexcept {
  switch (state) {
    case State::kSucceeded: case State::kFailed: case State::kTimedOut: case State::kCancelled: case State::kLost:
    case State::kRejected:
      return true;
    case State::kAccepted: case State::kQueued: case State::kPreparing: case State::kStarting: case State::kRunning:
    case State::kStopping: case State::kTearingDown:
      return false;
  }
  return false;
}

State terminal_state(Reason reason) noexcept {
  if (reason >= Reason::kSignatureInvalid && reason <= Reason::kLaneUnavailable) {
    return State::kRejected;
  }
  switch (reason) {
    case Reason::kCompleted: return State::kSucceeded;
    case Reason::kDeadlineExceeded: return State::kTimedOut;
    case Reason::kCancelledByUser: case Reason::kKilledByOperator: case Reason::kKillSwitch: case Reason::kNodeShutdown:
      return State::kCancelled;
    case Reason::kNodeRebooted: return State::kLost;
    default: return State::kFailed;
  }
}

int exit_code_for(const Outcome& outcome, std::optional<Verdict> verdict) noexcept {
  if (verdict.has_value() && *verdict != Verdict::kClean) {
    return 123;
  }
  switch (outcome.reason) {
    case Reason::kCompleted: case Reason::kError: return outcome.exit_code.value_or(125);
    case Reason::kSignaled: return 128 + outcome.signal.value_or(0);
    case Reason::kDeadlineExceeded: return 124;
    case Reason::kCancelledByUser: case Reason::kKilledByOperator: case Reason::kKillSwitch: case Reason::kNodeShutdown:
      return 122;
    case Reason::kOomKilledGuest: case Reason::kOomKilledHost: case Reason::kPidsExhausted:
    case Reason::kDiskQuotaExceeded: case Reason::kLogLimitExceeded: case Reason::kEgressQuotaExceeded:
      return 137;
    case Reason::kSchemaInvalid: case Reason::kUnsupportedField: case Reason::kImageNotPinned: return 65;
    case Reason::kNoCapacity: case Reason::kNodeDraining: case Reason::kNodeQuarantined: return 75;
    default:
      return terminal_state(outcome.reason) == State::kRejected ? 77 : 125;
  }
}

}  // namespace cellrund::model
