// The ledger's tables. Version n+1 gets a migration beside this text; a higher version on disk is refused.
//
// cellsweep reads `meta`, `jobs` and `journal` of a dead node, in each version, so their columns are part of the contract.
#pragma once

namespace cellrund::ledger {

inline constexpr int kApplicationId = 0x63727531;  // "cru1", PRAGMA application_id
inline constexpr int kSchemaVersion = 2;           // PRAGMA user_version

inline constexpr const char* kSchema = R"sql(
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

-- Every uid that was ever accepted. Never deleted from: a uid runs once on a node, for ever.
CREATE TABLE used_uids(uid TEXT PRIMARY KEY, spec_digest TEXT NOT NULL) WITHOUT ROWID;

-- `boot_id`: the boot in which the job was accepted, and so that of its journal, since recovery ends a job in the next one.
CREATE TABLE jobs(
  seq INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE,
  spec_digest TEXT NOT NULL, name TEXT NOT NULL, tenant TEXT NOT NULL, lane TEXT NOT NULL, image TEXT NOT NULL,
  signer_key_id TEXT NOT NULL, peer_uid INTEGER NOT NULL, peer_gid INTEGER NOT NULL, peer_pid INTEGER NOT NULL,
  envelope BLOB NOT NULL,
  state TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '', exit_code INTEGER, signal INTEGER,
  message TEXT NOT NULL DEFAULT '', verdict TEXT, evidence_digest TEXT NOT NULL DEFAULT '',
  closed INTEGER NOT NULL DEFAULT 0, boot_id TEXT NOT NULL DEFAULT '');
CREATE INDEX jobs_open ON jobs(seq) WHERE closed = 0;

CREATE TABLE timeline(
  id INTEGER PRIMARY KEY, uid TEXT NOT NULL, state TEXT NOT NULL,
  wall_s INTEGER NOT NULL, wall_ns INTEGER NOT NULL, boot_ns INTEGER NOT NULL, cause TEXT NOT NULL);
CREATE INDEX timeline_uid ON timeline(uid);

-- What a cell may own. `identity` is empty while only the intent is known; `removed` is 1 once a CLEAN verdict proved
-- the absence.
CREATE TABLE journal(
  id INTEGER PRIMARY KEY, uid TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL,
  identity TEXT NOT NULL DEFAULT '', removed INTEGER NOT NULL DEFAULT 0);
CREATE INDEX journal_uid ON journal(uid);

-- Sealed evidence, in the order of sealing. One record per job, for ever.
CREATE TABLE records(
  seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, uid TEXT NOT NULL, spec_digest TEXT NOT NULL, reason TEXT NOT NULL,
  owner_uid INTEGER NOT NULL, digest TEXT NOT NULL, envelope BLOB NOT NULL);
CREATE UNIQUE INDEX records_job ON records(uid) WHERE kind = 'job';
CREATE INDEX records_refusal ON records(uid) WHERE kind = 'refusal' AND uid <> '';
)sql";

// From version 1, which knew only the boot of its last open: no older boot can be told apart any more.
inline constexpr const char* kFromVersion1 = R"sql(
ALTER TABLE jobs ADD COLUMN boot_id TEXT NOT NULL DEFAULT '';
UPDATE jobs SET boot_id = coalesce((SELECT value FROM meta WHERE key = 'boot_id'), '');
)sql";

// Made at each open where it is missing. No new version: an older cellrund keeps an index up to date without knowing it.
inline constexpr const char* kJobsBySpec = "CREATE INDEX IF NOT EXISTS jobs_spec ON jobs(spec_digest)";

}  // namespace cellrund::ledger
