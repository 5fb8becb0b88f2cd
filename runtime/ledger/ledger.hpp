// Ledger: what a node must not forget. One SQLite file, one connection (locking_mode EXCLUSIVE, WAL, synchronous FULL),
// owned by the daemon for its whole life; nothing else opens it meanwhile. Thread-safe.
//
// A call marked "durable" has reached the disk when it returns, together with every buffered call before it. A buffered
// call is visible at once to readers of this object and becomes durable with the next durable call of any job, so a job
// pays a commit only where its next step is a side effect.
//
// A write that fails to reach the disk is never retried (the page cache may already have dropped it: see fsync(2),
// "EIO"): the ledger then refuses every further write with kDataLoss, and admission stops. Reads keep answering from what was committed.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "base/result.hpp"
#include "model/evidence.hpp"
#include "model/inventory.hpp"
#include "model/journal.hpp"
#include "model/node.hpp"
#include "model/outcome.hpp"

namespace cellrund::ledger {

// A job as accepted.
struct NewJob {
  std::string uid, spec_digest, name, tenant, lane, image, signer_key_id;
  model::PeerFacts peer;
  std::string envelope;  // the submitted bytes, so that a job still queued survives a restart; may be empty
};

// A job as stored.
struct JobRow {
  NewJob job;
  model::State state = model::State::kAccepted;
  model::Outcome outcome;  // meaningful once `state` is terminal
  std::optional<model::Verdict> verdict;
  std::string evidence_digest;
  std::vector<model::TimelineEntry> timeline;
  bool closed = false;  // sealed
  std::string boot_id;  // of its acceptance: pids and kernel ids in its journal mean nothing in another boot
};

enum class Acceptance {
  kNew,       // the uid is consumed and the job is ours
  kSame,      // the same payload under the same uid was accepted before: the same job
  kReplayed,  // other bytes were accepted under this uid
};

struct Sealed {
  model::TimelineEntry final;  // `final.state` is terminal
  model::Outcome outcome;
  std::optional<model::Verdict> verdict;  // absent when nothing was created
  std::string envelope;                   // DSSE JSON
  std::string digest;                     // "sha256:…" of `envelope`
};

// A refused submission, or (uid empty) the count of over-budget ones.
struct RefusalRow {
  std::string uid, spec_digest;  // as far as known
  model::Reason reason = model::Reason::kNone;
  model::PeerFacts peer;
  std::string envelope;
  std::string digest;
};

struct Record {
  std::string kind;  // job | refusal
  std::string uid, digest, envelope;
  std::uint32_t owner_uid = 0;
};

class Ledger {
 public:
  // Opens or creates `path` (its folder must exist). kUnavailable when another process holds it,
  // kFailedPrecondition when a newer version made it, kDataLoss when it is no ledger.
  static base::Result<Ledger> open(const std::string& path);
  Ledger(Ledger&&) noexcept;
  Ledger& operator=(Ledger&&) noexcept;
  Ledger(const Ledger&) = delete;
  Ledger& operator=(const Ledger&) = delete;
  ~Ledger();

  // Drawn once per ledger.
  [[nodiscard]] model::NodeTag node_tag() const;
  // Stores `boot_id` durably, for every job that is accepted from now on, and returns the one of the previous open
  // (empty for a new ledger): another one means that the host was restarted and nothing of its kernel state is left.
  base::Result<std::string> exchange_boot_id(const std::string& boot_id);
  // The failure that stopped the ledger; nullopt while it is healthy.
  [[nodiscard]] std::optional<std::string> stopped() const;

  // Durable. kNew inserts the job in state ACCEPTED with `entry` as its first timeline entry.
  base::Result<Acceptance> accept(const NewJob& job, const model::TimelineEntry& entry);
  // Buffered.
  base::Status advance(const std::string& uid, const model::TimelineEntry& entry);

  // intend() is durable, created() is buffered. The journal must not outlive the ledger.
  [[nodiscard]] std::unique_ptr<model::Journal> journal_for(const std::string& uid);
  // Everything ever intended for the job and not yet proven absent.
  base::Result<model::Inventory> inventory(const std::string& uid);

  // Durable, one transaction: the final state and the record; with CLEAN the inventory is settled. kAlreadyExists when
  // the job is sealed already (nothing changes), kNotFound for an unknown job.
  base::Status seal(const std::string& uid, const Sealed& sealed);
  // Durable.
  base::Status seal_refusal(const RefusalRow& refusal);

  // Jobs without a sealed record, oldest first: what recovery has to finish.
  base::Result<std::vector<JobRow>> unfinished();
  // Sealed jobs that have an inventory and no CLEAN verdict: their capacity stays quarantined.
  base::Result<std::vector<std::string>> unclean();
  base::Result<std::optional<JobRow>> get(const std::string& uid);
  // The uid under which this payload was accepted from this peer; nullopt when it never was.
  base::Result<std::optional<std::string>> accepted_uid(const std::string& spec_digest, std::uint32_t peer_uid);
  // Newest first, without envelopes and timelines.
  base::Result<std::vector<JobRow>> list(std::size_t limit);
  // The job's record, or else the newest refusal under that uid. `owner` (absent: anybody) puts what belongs
  // to this peer first, so that nobody's submission hides another one's record. kNotFound when there is neither.
  base::Result<Record> record(const std::string& uid, std::optional<std::uint32_t> owner = std::nullopt);

 private:
  class Impl;
  explicit Ledger(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace cellrund::ledger
