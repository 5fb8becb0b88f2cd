#include "ledger/ledger.hpp"

#include <sys/random.h>

#include <array>
#include <utility>

#include "base/guarded.hpp"
#include "base/hex.hpp"
#include "ledger/database.hpp"

namespace cellrund::ledger {
namespace {

using base::Errc;
using base::Error;
using model::TimelineEntry;

constexpr std::string_view kTagKey = "node_tag";
constexpr std::string_view kBootKey = "boot_id";

Parameter text(std::string_view value) { return value; }
Parameter number(std::int64_t value) { return value; }
Parameter optional_number(const std::optional<int>& value) {
  return value ? Parameter(std::int64_t{*value}) : Parameter(nullptr);
}

base::Result<std::optional<std::string>> read_meta(Database& db, std::string_view key) {
  std::optional<std::string> value;
  CR_CHECK(db.query("SELECT value FROM meta WHERE key = ?1", {text(key)}, [&](const Row& row) { value = row.text(0); }));
  return value;
}

base::Status write_meta(Database& db, std::string_view key, std::string_view value) {
  CR_CHECK(db.begin());
  CR_CHECK(db.run("INSERT INTO meta(key, value) VALUES(?1, ?2) ON CONFLICT(key) DO UPDATE SET value = ?2",
                  {text(key), text(value)}));
  return db.commit();
}

base::Result<std::string> node_tag_of(Database& db) {
  if (std::optional<std::string> tag = CR_TRY(read_meta(db, kTagKey))) {
    return *tag;
  }
  std::array<std::uint8_t, 4> random{};
  if (::getrandom(random.data(), random.size(), 0) != static_cast<ssize_t>(random.size())) {
    return Error::from_errno("getrandom");
  }
  std::string tag = base::to_hex(random);
  CR_CHECK(write_meta(db, kTagKey, tag));
  return tag;
}

base::Status add_timeline(Database& db, const std::string& uid, const TimelineEntry& entry) {
  return db.run("INSERT INTO timeline(uid, state, wall_s, wall_ns, boot_ns, cause) VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
                {text(uid), text(to_string(entry.state)), number(entry.wall.seconds), number(entry.wall.nanos),
                 number(entry.boot.ns), text(entry.cause)});
}

base::Result<std::vector<TimelineEntry>> read_timeline(Database& db, const std::string& uid) {
  std::vector<TimelineEntry> timeline;
  CR_CHECK(db.query("SELECT state, wall_s, wall_ns, boot_ns, cause FROM timeline WHERE uid = ?1 ORDER BY id",
                    {text(uid)}, [&](const Row& row) {
                      TimelineEntry entry;
                      entry.state = model::parse_state(row.text(0)).value_or(model::State::kLost);
                      entry.wall = {row.integer(1), static_cast<std::int32_t>(row.integer(2))};
                      entry.boot = {row.integer(3)};
                      entry.cause = row.text(4);
                      timeline.push_back(std::move(entry));
                    }));
  return timeline;
}

// Column order of every query that ends in read_job().
#define CR_JOB_COLUMNS                                                                                            \
  "uid, spec_digest, name, tenant, lane, image, signer_key_id, peer_uid, peer_gid, peer_pid, state, reason, "     \
  "exit_code, signal, message, verdict, evidence_digest, closed, boot_id"

JobRow read_job(const Row& row) {
  JobRow job;
  job.job.uid = row.text(0);
  job.job.spec_digest = row.text(1);
  job.job.name = row.text(2);
  job.job.tenant = row.text(3);
  job.job.lane = row.text(4);
  job.job.image = row.text(5);
  job.job.signer_key_id = row.text(6);
  job.job.peer = {static_cast<std::uint32_t>(row.integer(7)), static_cast<std::uint32_t>(row.integer(8)),
                  static_cast<std::int32_t>(row.integer(9))};
  job.state = model::parse_state(row.text(10)).value_or(model::State::kLost);
  job.outcome.state = job.state;
  job.outcome.reason = model::parse_reason(row.text(11)).value_or(model::Reason::kNone);
  if (!row.is_null(12)) {
    job.outcome.exit_code = static_cast<int>(row.integer(12));
  }
  if (!row.is_null(13)) {
    job.outcome.signal = static_cast<int>(row.integer(13));
  }
  job.outcome.message = row.text(14);
  if (!row.is_null(15)) {
    job.verdict = model::parse_verdict(row.text(15)).value_or(model::Verdict::kUnknown);
  }
  job.evidence_digest = row.text(16);
  job.closed = row.integer(17) != 0;
  job.boot_id = row.text(18);
  return job;
}

}  // namespace

class Ledger::Impl {
 public:
  Impl(std::unique_ptr<Database> database, std::string node_tag) : database_(std::move(database)), node_tag_{std::move(node_tag)} {}
  ~Impl() {
    // What was buffered is worth keeping at an orderly end; after a failure there is nothing to commit.
    (void)(*database_.lock())->commit();
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  Impl(Impl&&) = delete;
  Impl& operator=(Impl&&) = delete;

  // The connection, and its lock for as long as this lives.
  class Access {
   public:
    explicit Access(base::Guarded<std::unique_ptr<Database>>& database) : lock_(database.lock()) {}
    Database& operator*() noexcept { return **lock_; }
    Database* operator->() noexcept { return (*lock_).get(); }

   private:
    base::Guarded<std::unique_ptr<Database>>::Lock lock_;
  };
  [[nodiscard]] Access lock() { return Access(database_); }
  [[nodiscard]] const model::NodeTag& node_tag() const noexcept { return node_tag_; }

 private:
  base::Guarded<std::unique_ptr<Database>> database_;
  model::NodeTag node_tag_;
};

namespace {

// model::Journal on the ledger's connection, for one job.
template <typename Impl>
class JobJournal final : public model::Journal {
 public:
  JobJournal(Impl& impl, std::string uid) : impl_(impl), uid_(std::move(uid)) {}

  base::Status intend(const model::Inventory& items) override {
    auto db = impl_.lock();
    CR_CHECK(db->begin());
    for (const model::InventoryItem& item : items) {
      CR_CHECK(db->run("INSERT INTO journal(uid, kind, name, identity) VALUES(?1, ?2, ?3, ?4)",
                       {text(uid_), text(to_string(item.kind)), text(item.name), text(item.identity)}));
    }
    return db->commit();
  }

  base::Status created(const model::InventoryItem& item) override {
    auto db = impl_.lock();
    CR_CHECK(db->begin());
    // Two items may share kind and name (maps of one program, a process role started again): the oldest intent without
    // an identity is meant.
    CR_CHECK(db->run("UPDATE journal SET identity = ?4 WHERE id = (SELECT min(id) FROM journal WHERE uid = ?1 AND "
                     "kind = ?2 AND name = ?3 AND identity = '' AND removed = 0)",
                     {text(uid_), text(to_string(item.kind)), text(item.name), text(item.identity)}));
    if (db->changes() == 0) {
      return Error(Errc::kFailedPrecondition, "journal of " + uid_ + ": " + std::string(to_string(item.kind)) + " " +
                                                  item.name + " was created without an intent");
    }
    return base::ok();
  }

 private:
  Impl& impl_;
  std::string uid_;
};

}  // namespace

Ledger::Ledger(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Ledger::Ledger(Ledger&&) noexcept = default;
Ledger& Ledger::operator=(Ledger&&) noexcept = default;
Ledger::~Ledger() = default;

base::Result<Ledger> Ledger::open(const std::string& path) {
  std::unique_ptr<Database> database = CR_TRY(Database::open(path));
  std::string tag = CR_TRY(node_tag_of(*database).context("ledger " + path));
  return Ledger(std::make_unique<Impl>(std::move(database), std::move(tag)));
}

model::NodeTag Ledger::node_tag() const { return impl_->node_tag(); }

base::Result<std::string> Ledger::exchange_boot_id(const std::string& boot_id) {
  auto db = impl_->lock();
  std::string before = CR_TRY(read_meta(*db, kBootKey)).value_or("");
  if (before != boot_id) {
    CR_CHECK(write_meta(*db, kBootKey, boot_id));
  }
  return before;
}

std::optional<std::string> Ledger::stopped() const { return impl_->lock()->stopped(); }

base::Result<Acceptance> Ledger::accept(const NewJob& job, const TimelineEntry& entry) {
  auto db = impl_->lock();
  CR_CHECK(db->begin());
  std::optional<std::string> used;
  CR_CHECK(db->query("SELECT spec_digest FROM used_uids WHERE uid = ?1", {text(job.uid)},
                     [&](const Row& row) { used = row.text(0); }));
  if (used) {
    return *used == job.spec_digest ? Acceptance::kSame : Acceptance::kReplayed;
  }
  CR_CHECK(db->run("INSERT INTO used_uids(uid, spec_digest) VALUES(?1, ?2)", {text(job.uid), text(job.spec_digest)}));
  CR_CHECK(db->run("INSERT INTO jobs(uid, spec_digest, name, tenant, lane, image, signer_key_id, peer_uid, peer_gid, "
                   "peer_pid, envelope, state, boot_id) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, "
                   "coalesce((SELECT value FROM meta WHERE key = 'boot_id'), ''))",
                   {text(job.uid), text(job.spec_digest), text(job.name), text(job.tenant), text(job.lane),
                    text(job.image), text(job.signer_key_id), number(job.peer.uid), number(job.peer.gid),
                    number(job.peer.pid), Blob{job.envelope}, text(to_string(entry.state))}));
  CR_CHECK(add_timeline(*db, job.uid, entry));
  CR_CHECK(db->commit());
  return Acceptance::kNew;
}

base::Status Ledger::advance(const std::string& uid, const TimelineEntry& entry) {
  auto db = impl_->lock();
  CR_CHECK(db->begin());
  CR_CHECK(db->run("UPDATE jobs SET state = ?2 WHERE uid = ?1 AND closed = 0",
                   {text(uid), text(to_string(entry.state))}));
  if (db->changes() == 0) {
    return Error(Errc::kFailedPrecondition, "advance job " + uid + ": it is unknown or sealed");
  }
  return add_timeline(*db, uid, entry);
}

std::unique_ptr<model::Journal> Ledger::journal_for(const std::string& uid) {
  return std::make_unique<JobJournal<Impl>>(*impl_, uid);
}

base::Result<model::Inventory> Ledger::inventory(const std::string& uid) {
  auto db = impl_->lock();
  model::Inventory items;
  std::string unknown;
  CR_CHECK(db->query("SELECT kind, name, identity FROM journal WHERE uid = ?1 AND removed = 0 ORDER BY id", {text(uid)},
                     [&](const Row& row) {
                       const std::optional<model::ItemKind> kind = model::parse_item_kind(row.text(0));
                       if (kind) {
                         items.push_back({*kind, row.text(1), row.text(2)});
                       } else {
                         unknown = row.text(0);
                       }
                     }));
  if (!unknown.empty()) {  // dropping it would turn into a CLEAN verdict over something nobody looked at
    return Error(Errc::kDataLoss, "inventory of " + uid + ": unknown kind " + unknown);
  }
  return items;
}

base::Status Ledger::seal(const std::string& uid, const Sealed& sealed) {
  auto db = impl_->lock();
  CR_CHECK(db->begin());
  std::optional<bool> closed;
  std::int64_t owner = 0;
  std::string spec_digest;
  CR_CHECK(db->query("SELECT closed, peer_uid, spec_digest FROM jobs WHERE uid = ?1", {text(uid)}, [&](const Row& row) {
    closed = row.integer(0) != 0;
    owner = row.integer(1);
    spec_digest = row.text(2);
  }));
  if (!closed) {
    return Error(Errc::kNotFound, "seal job " + uid + ": it is unknown");
  }
  if (*closed) {
    return Error(Errc::kAlreadyExists, "seal job " + uid + ": it has a record already");
  }
  const Parameter verdict = sealed.verdict ? text(to_string(*sealed.verdict)) : Parameter(nullptr);
  CR_CHECK(db->run("UPDATE jobs SET state = ?2, reason = ?3, exit_code = ?4, signal = ?5, message = ?6, verdict = ?7, "
                   "evidence_digest = ?8, closed = 1 WHERE uid = ?1",
                   {text(uid), text(to_string(sealed.final.state)), text(to_string(sealed.outcome.reason)),
                    optional_number(sealed.outcome.exit_code), optional_number(sealed.outcome.signal),
                    text(sealed.outcome.message), verdict, text(sealed.digest)}));
  CR_CHECK(add_timeline(*db, uid, sealed.final));
  CR_CHECK(db->run("INSERT INTO records(kind, uid, spec_digest, reason, owner_uid, digest, envelope) "
                   "VALUES('job', ?1, ?2, ?3, ?4, ?5, ?6)",
                   {text(uid), text(spec_digest), text(to_string(sealed.outcome.reason)), number(owner),
                    text(sealed.digest), Blob{sealed.envelope}}));
  if (sealed.verdict == model::Verdict::kClean) {
    CR_CHECK(db->run("UPDATE journal SET removed = 1 WHERE uid = ?1", {text(uid)}));
  }
  return db->commit();
}

base::Status Ledger::seal_refusal(const RefusalRow& refusal) {
  auto db = impl_->lock();
  CR_CHECK(db->begin());
  CR_CHECK(db->run("INSERT INTO records(kind, uid, spec_digest, reason, owner_uid, digest, envelope) "
                   "VALUES('refusal', ?1, ?2, ?3, ?4, ?5, ?6)",
                   {text(refusal.uid), text(refusal.spec_digest), text(to_string(refusal.reason)),
                    number(refusal.peer.uid), text(refusal.digest), Blob{refusal.envelope}}));
  return db->commit();
}

base::Result<std::vector<JobRow>> Ledger::unfinished() {
  auto db = impl_->lock();
  std::vector<JobRow> jobs;
  CR_CHECK(db->query("SELECT " CR_JOB_COLUMNS ", envelope FROM jobs WHERE closed = 0 ORDER BY seq", {},
                     [&](const Row& row) {
                       jobs.push_back(read_job(row));
                       jobs.back().job.envelope = row.text(19);
                     }));
  for (JobRow& job : jobs) {
    job.timeline = CR_TRY(read_timeline(*db, job.job.uid));
  }
  return jobs;
}

base::Result<std::vector<std::string>> Ledger::unclean() {
  auto db = impl_->lock();
  std::vector<std::string> uids;
  CR_CHECK(db->query("SELECT uid FROM jobs WHERE closed = 1 AND verdict IS NOT 'CLEAN' AND EXISTS "
                     "(SELECT 1 FROM journal WHERE journal.uid = jobs.uid AND removed = 0) ORDER BY seq",
                     {}, [&](const Row& row) { uids.push_back(row.text(0)); }));
  return uids;
}

base::Result<std::optional<JobRow>> Ledger::get(const std::string& uid) {
  auto db = impl_->lock();
  std::optional<JobRow> job;
  CR_CHECK(db->query("SELECT " CR_JOB_COLUMNS ", envelope FROM jobs WHERE uid = ?1", {text(uid)}, [&](const Row& row) {
    job = read_job(row);
    job->job.envelope = row.text(19);
  }));
  if (job) {
    job->timeline = CR_TRY(read_timeline(*db, uid));
  }
  return job;
}

base::Result<std::optional<std::string>> Ledger::accepted_uid(const std::string& spec_digest, std::uint32_t peer_uid) {
  auto db = impl_->lock();
  std::optional<std::string> uid;
  CR_CHECK(db->query("SELECT uid FROM jobs WHERE spec_digest = ?1 AND peer_uid = ?2", {text(spec_digest), number(peer_uid)},
                     [&](const Row& row) { uid = row.text(0); }));
  return uid;
}

base::Result<std::vector<JobRow>> Ledger::list(std::size_t limit) {
  auto db = impl_->lock();
  std::vector<JobRow> jobs;
  CR_CHECK(db->query("SELECT " CR_JOB_COLUMNS " FROM jobs ORDER BY seq DESC LIMIT ?1",
                     {number(static_cast<std::int64_t>(limit))},
                     [&](const Row& row) { jobs.push_back(read_job(row)); }));
  return jobs;
}

base::Result<Record> Ledger::record(const std::string& uid, std::optional<std::uint32_t> owner) {
  auto db = impl_->lock();
  std::optional<Record> record;
  CR_CHECK(db->query("SELECT kind, uid, digest, envelope, owner_uid FROM records WHERE uid = ?1 AND uid <> '' "
                     "ORDER BY owner_uid IS ?2 DESC, kind = 'job' DESC, seq DESC LIMIT 1",
                     {text(uid), owner ? number(*owner) : Parameter(nullptr)}, [&](const Row& row) {
                       record = Record{row.text(0), row.text(1), row.text(2), row.text(3),
                                       static_cast<std::uint32_t>(row.integer(4))};
                     }));
  if (!record) {
    return Error(Errc::kNotFound, "evidence of " + uid + ": no sealed record");
  }
  return std::move(*record);
}

}  // namespace cellrund::ledger
