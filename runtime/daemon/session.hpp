// One connection of the native socket, from its first request to its end: reads a request, asks the node, answers.
// Decides what the peer may see (docs/SPEC.md, "The sockets"). Runs on a thread of its own and owns nothing but the
// reference to its descriptor.
#pragma once

#include <atomic>
#include <optional>
#include <string>

#include "api/messages.hpp"
#include "base/clock.hpp"
#include "cell/node.hpp"
#include "daemon/config.hpp"
#include "daemon/refusal_budget.hpp"
#include "model/evidence.hpp"

namespace cellrund::daemon {

// Shared by all connections; outlives them.
struct SessionContext {
  cell::Node& node;
  RefusalBudget& refusals;
  const Config::Limits& limits;
  std::string version;
  std::string node_id;
  const std::atomic<bool>& stopping;
};

enum class Door { kOrdinary, kAdmin };

class Session {
 public:
  Session(const SessionContext& context, int fd, model::PeerFacts peer, Door door)
      : context_(context), fd_(fd), peer_(peer), door_(door) {}

  // Until the peer leaves, breaks a rule or a deadline, or the server stops.
  void run();

 private:
  enum class Next { kContinue, kClose };
  class LogReader;

  Next handle(const api::Request& request);
  Next on(const api::Submit& request);
  Next on(const api::Get& request);
  Next on(const api::List& request);
  Next on(const api::Watch& request);
  Next on(const api::Logs& request);
  Next on(const api::Cancel& request);
  Next on(const api::GetEvidence& request);
  Next on(const api::GetFlows& request);
  Next on(const api::GetOutputs& request);
  Next on(const api::ReadOutput& request);
  Next on(const api::GetCapacity& request);
  Next on(const api::SetDraining& request);
  Next on(const api::UseKillSwitch& request);
  Next on(const api::Ping& request);
  Next on(const api::Upload& request);

  Next answer(const api::Response& response);
  Next fail(const base::Error& error, const std::string& uid = {});
  // The job, if it exists and its contents belong to this peer; otherwise the failure to answer with.
  base::Result<cell::JobView> own_job(const std::string& uid, std::string_view what);
  [[nodiscard]] bool is_root() const noexcept;
  [[nodiscard]] cell::Viewer viewer() const noexcept;
  [[nodiscard]] bool may_see(const cell::JobView& job) const noexcept;
  [[nodiscard]] api::Job view(const cell::JobView& job) const;
  // Why a job that is not closed will not be closed by this daemon; nullopt while it may be.
  std::optional<base::Error> never_closes(const cell::JobView& job);
  // Waits for a change of a followed job. False when the stream has to end: the peer is gone or the server stops.
  bool wait(const std::string& uid, std::uint64_t version, std::uint64_t log_bytes);

  const SessionContext& context_;
  int fd_;
  model::PeerFacts peer_;
  Door door_;
  struct OpenUpload {
    image::InputStore::Upload upload;
    base::Deadline until;
  };
  std::optional<OpenUpload> upload_;
};

}  // namespace cellrund::daemon
