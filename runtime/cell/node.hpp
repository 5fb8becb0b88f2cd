// Node: every job of this host, from submission to sealed record. The sockets (daemon/server) stand on this interface;
// behind it each live cell is one thread that runs run_cell() from top to bottom (cell/pipeline).
// All members are thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/clock.hpp"
#include "base/file.hpp"
#include "base/result.hpp"
#include "cell/output_store.hpp"
#include "image/input_store.hpp"
#include "model/evidence.hpp"
#include "model/outcome.hpp"

namespace cellrund::cell {

// One job as any client may see it; the server hides the fields of foreign jobs.
struct JobView {
  std::string uid, name, tenant, lane, image, spec_digest;
  std::uint32_t owner_uid = 0;  // the submitting peer
  model::State state = model::State::kAccepted;
  model::Outcome outcome;                  // meaningful once `state` is terminal
  std::optional<model::Verdict> verdict;   // once teardown was verified
  std::string evidence_digest;             // "sha256:…" of the sealed envelope; empty until sealed
  std::vector<model::TimelineEntry> timeline;
  std::uint64_t version = 0;  // grows with every change; see Node::wait_change
  bool closed = false;        // evidence sealed: nothing changes any more
  std::string unsealed;       // why the record of an ended job could not be written: a restarted daemon closes the job
};

struct Accepted {
  std::string uid;
  bool already_known = false;  // the same bytes were submitted before: the same job, not a new one
};

struct CapacityView {
  std::uint64_t cpu_millis_total = 0, cpu_millis_used = 0;
  std::uint64_t memory_bytes_total = 0, memory_bytes_used = 0;
  std::uint64_t cells_total = 0, cells_used = 0, cells_quarantined = 0, queued = 0, queue_limit = 0;
  bool draining = false;
  std::string held;                // why the first of the queue waits although there is capacity
  std::vector<std::string> lanes;  // available ones
  std::string accel;               // kvm | tcg | "" when there is no microvm lane
};

// What is true of the kill switch: of the node, and of each job that is not closed.
struct KillSwitchJob {
  std::string uid, name;
  model::State state = model::State::kAccepted;
  std::string network;  // "cut", "none", "open", or why nobody can tell
};
struct KillSwitchView {
  bool engaged = false;
  std::vector<KillSwitchJob> jobs;
};

enum class Stream { kStdout, kStderr };

// A part of a job's output in the order in which it arrived. One reader's place in it is its cursor.
struct LogPiece {
  Stream stream = Stream::kStdout;
  std::uint64_t offset = 0;  // within its stream
  std::int64_t wall_ns = 0;  // when it came, since 1970
  std::string data;
};
struct LogCursor {
  std::uint64_t record = 0, within = 0;
  std::array<std::uint64_t, 2> offsets{};
  std::int64_t wall_ns = 0;
};

// On whose behalf a job is looked at: a peer's uid; nullopt for root, who sees everything. A uid names its job, whoever
// that belongs to; where it has only refusals, the viewer's own newest one, and for root the newest.
using Viewer = std::optional<std::uint32_t>;

class Node {
 public:
  Node() = default;
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;
  Node(Node&&) = delete;
  Node& operator=(Node&&) = delete;
  virtual ~Node() = default;

  // Durable before it returns: an accepted job has a ledger row and a consumed uid, a refused one a sealed record.
  // An Error means that neither could be written (for example no disk): nothing was accepted.
  virtual base::Result<std::variant<Accepted, model::Refusal>> submit(base::BytesView envelope,
                                                                      const model::PeerFacts& peer) = 0;
  // Why nothing can be accepted or closed any more, which only a restart of the daemon ends; nullopt while all is well.
  virtual std::optional<base::Error> stopped() = 0;
  // An archive with files of jobs that this peer is about to submit. See image/input_store.hpp.
  virtual base::Result<std::optional<image::InputStore::Upload>> begin_upload(const std::string& digest, std::uint64_t size,
                                                                              std::uint32_t peer_uid) = 0;
  // Above the peer's refusal budget the server closes the connection and reports how many it dropped; one record a
  // minute seals the sum.
  virtual void count_dropped(std::uint32_t peer_uid, std::uint64_t submissions) = 0;

  virtual std::optional<JobView> get(const std::string& uid, Viewer viewer) = 0;
  // Newest first; `limit` at most 1000.
  virtual std::vector<JobView> list(std::size_t limit) = 0;
  // Blocks until the job's version is above `seen`, its log grew beyond `log_bytes_seen` in total, or the deadline.
  virtual void wait_change(const std::string& uid, std::uint64_t seen, std::uint64_t log_bytes_seen,
                           base::Deadline deadline) = 0;
  // Total bytes of both streams stored so far.
  virtual std::uint64_t log_bytes(const std::string& uid) = 0;
  // Up to `limit` bytes from `offset`; empty at the present end. kNotFound for an unknown job.
  virtual base::Result<std::string> read_log(const std::string& uid, Stream stream, std::uint64_t offset,
                                             std::size_t limit) = 0;
  // The next piece of both streams, at most `limit` bytes of it, and moves the cursor; nullopt at the present end.
  virtual base::Result<std::optional<LogPiece>> read_log_piece(const std::string& uid, LogCursor& cursor, std::size_t limit) = 0;
  // Whether output was dropped because the job's log was full.
  virtual bool log_was_cut(const std::string& uid) = 0;
  // Idempotent; after the end it changes nothing. by_operator: root on the admin socket.
  virtual base::Status cancel(const std::string& uid, bool by_operator) = 0;
  // The DSSE envelope (JSON). kNotFound for an unknown job, kFailedPrecondition while it is not sealed yet.
  virtual base::Result<std::string> evidence(const std::string& uid, Viewer viewer) = 0;
  // Live decisions of the filter, or the sealed ones after the end. kFailedPrecondition between the two.
  virtual base::Result<model::EgressFacts> flows(const std::string& uid, Viewer viewer) = 0;
  // Of a closed job. kFailedPrecondition before that, kNotFound when it asked for none, they have expired or could not be stored.
  virtual base::Result<model::OutputFacts> outputs(const std::string& uid) = 0;
  virtual base::Result<OutputSource> open_output(const std::string& uid, const std::string& path) = 0;
  virtual CapacityView capacity() = 0;
  // Admin only.
  virtual void set_draining(bool draining) = 0;
  // Admin only. Engaged: every cell's network is cut, every job is ended (KillSwitch), and no job is accepted.
  virtual base::Result<KillSwitchView> set_kill_switch(bool engaged) = 0;
  virtual base::Result<KillSwitchView> kill_switch() = 0;
};

}  // namespace cellrund::cell
