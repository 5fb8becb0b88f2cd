#include "ledger/ledger.hpp"

#include <doctest/doctest.h>
#include <sqlite3.h>

#include <algorithm>
#include <thread>
#include <vector>

#include "base/file.hpp"
#include "ledger/database.hpp"
#include "scratch.hpp"

using namespace cellrund;
using ledger::Acceptance;
using ledger::Ledger;
using ledger_test::entry;
using ledger_test::job;
using ledger_test::kUid;
using ledger_test::Scratch;
using ledger_test::sealed;

TEST_CASE("a new ledger draws a node tag and keeps it") {
  const Scratch scratch;
  std::string tag;
  {
    Ledger first = Ledger::open(scratch.file()).value();
    tag = first.node_tag().value;
    CHECK(tag.size() == 8);
    CHECK(first.exchange_boot_id("boot-1").value().empty());
  }
  Ledger second = Ledger::open(scratch.file()).value();
  CHECK(second.node_tag().value == tag);
  CHECK(second.exchange_boot_id("boot-2").value() == "boot-1");
  CHECK(second.exchange_boot_id("boot-2").value() == "boot-2");
}

TEST_CASE("a job keeps the boot of its acceptance") {
  const Scratch scratch;
  Ledger ledger = Ledger::open(scratch.file()).value();
  REQUIRE(ledger.exchange_boot_id("boot-1").ok());
  REQUIRE(ledger.accept(job(), entry(model::State::kAccepted)).ok());
  REQUIRE(ledger.exchange_boot_id("boot-2").ok());
  ledger::NewJob later = job();
  later.uid = "later";
  REQUIRE(ledger.accept(later, entry(model::State::kAccepted)).ok());
  const std::vector<ledger::JobRow> rows = ledger.unfinished().value();
  REQUIRE(rows.size() == 2);
  CHECK(rows[0].boot_id == "boot-1");
  CHECK(rows[1].boot_id == "boot-2");
}

TEST_CASE("a ledger of schema version 1 is taken over: its jobs are of the boot that it last knew") {
  const Scratch scratch;
  std::string tag;
  {
    Ledger ledger = Ledger::open(scratch.file()).value();
    tag = ledger.node_tag().value;
    REQUIRE(ledger.exchange_boot_id("boot-1").ok());
    REQUIRE(ledger.accept(job(), entry(model::State::kAccepted)).ok());
    REQUIRE(ledger.journal_for(kUid)->intend({{model::ItemKind::kCgroup, "/c", ""}}).ok());
  }
  sqlite3* database = nullptr;
  REQUIRE(sqlite3_open(scratch.file().c_str(), &database) == SQLITE_OK);
  CHECK(sqlite3_exec(database, "ALTER TABLE jobs DROP COLUMN boot_id; PRAGMA user_version = 1", nullptr, nullptr, nullptr) ==
        SQLITE_OK);
  REQUIRE(sqlite3_close(database) == SQLITE_OK);
  for (int open = 0; open < 2; ++open) {
    Ledger ledger = Ledger::open(scratch.file()).value();
    CHECK(ledger.node_tag().value == tag);
    REQUIRE(ledger.exchange_boot_id("boot-2").ok());
    CHECK(ledger.get(kUid).value()->boot_id == "boot-1");
    CHECK(ledger.get(kUid).value()->job.envelope == job().envelope);
    CHECK(ledger.inventory(kUid).value().size() == 1);
  }
}

TEST_CASE("a uid is consumed once: the same bytes are the same job, other bytes are a replay") {
  const Scratch scratch;
  {
    Ledger ledger = Ledger::open(scratch.file()).value();
    CHECK(ledger.accept(job(), entry(model::State::kAccepted)).value() == Acceptance::kNew);
    CHECK(ledger.accept(job(), entry(model::State::kAccepted)).value() == Acceptance::kSame);
  }
  Ledger reopened = Ledger::open(scratch.file()).value();
  CHECK(reopened.accept(job(), entry(model::State::kAccepted)).value() == Acceptance::kSame);
  ledger::NewJob other = job();
  other.spec_digest = "sha256:other";
  CHECK(reopened.accept(other, entry(model::State::kAccepted)).value() == Acceptance::kReplayed);
  CHECK(reopened.list(10).value().size() == 1);
}

TEST_CASE("a job reads back as it was written") {
  const Scratch scratch;
  Ledger ledger = Ledger::open(scratch.file()).value();
  ledger::NewJob written = job();
  written.lane = "process";
  written.image = "r@sha256:00";
  REQUIRE(ledger.accept(written, entry(model::State::kAccepted)).ok());
  REQUIRE(ledger.advance(kUid, entry(model::State::kPreparing, "capacity granted")).ok());
  const std::optional<ledger::JobRow> row = ledger.get(kUid).value();
  REQUIRE(row.has_value());
  CHECK(row->job.lane == "process");
  CHECK(row->job.image == "r@sha256:00");
  CHECK(row->job.peer.uid == 1000);
  CHECK(row->job.envelope == std::string("{\"a\":\0}", 7));
  CHECK(row->state == model::State::kPreparing);
  CHECK_FALSE(row->closed);
  REQUIRE(row->timeline.size() == 2);
  CHECK(row->timeline[1].cause == "capacity granted");
  CHECK(row->timeline[1].wall.seconds == 1700000000);
  CHECK(row->timeline[1].boot.ns == 42);
  CHECK_FALSE(ledger.get("0199c1f2-7b1e-7c3a-9d2e-000000000000").value().has_value());
}

TEST_CASE("the journal takes an identity only for what was intended") {
  const Scratch scratch;
  Ledger ledger = Ledger::open(scratch.file()).value();
  REQUIRE(ledger.accept(job(), entry(model::State::kAccepted)).ok());
  const std::unique_ptr<model::Journal> journal = ledger.journal_for(kUid);
  REQUIRE(journal->intend({{model::ItemKind::kCgroup, "/c", ""}, {model::ItemKind::kBpfMap, "m", ""},
                           {model::ItemKind::kBpfMap, "m", ""}}).ok());
  CHECK(journal->created({model::ItemKind::kBpfMap, "m", "7"}).ok());
  CHECK(journal->created({model::ItemKind::kBpfMap, "m", "8"}).ok());
  const base::Status third = journal->created({model::ItemKind::kBpfMap, "m", "9"});
  REQUIRE_FALSE(third.ok());
  CHECK(third.error().code() == base::Errc::kFailedPrecondition);
  CHECK_FALSE(ledger.stopped().has_value());
  const model::Inventory items = ledger.inventory(kUid).value();
  CHECK(items == model::Inventory{{model::ItemKind::kCgroup, "/c", ""}, {model::ItemKind::kBpfMap, "m", "7"},
                                  {model::ItemKind::kBpfMap, "m", "8"}});
}

TEST_CASE("a job is sealed once, and the record says what it says") {
  const Scratch scratch;
  Ledger ledger = Ledger::open(scratch.file()).value();
  REQUIRE(ledger.accept(job(), entry(model::State::kAccepted)).ok());
  REQUIRE(ledger.journal_for(kUid)->intend({{model::ItemKind::kCgroup, "/c", ""}}).ok());
  CHECK(ledger.record(kUid).error().code() == base::Errc::kNotFound);
  REQUIRE(ledger.seal(kUid, sealed(model::Verdict::kClean)).ok());
  const base::Status again = ledger.seal(kUid, sealed(model::Verdict::kResidue));
  REQUIRE_FALSE(again.ok());
  CHECK(again.error().code() == base::Errc::kAlreadyExists);
  CHECK(ledger.seal("unknown", sealed(model::Verdict::kClean)).error().code() == base::Errc::kNotFound);
  CHECK_FALSE(ledger.advance(kUid, entry(model::State::kRunning)).ok());

  const ledger::JobRow row = ledger.get(kUid).value().value();
  CHECK(row.closed);
  CHECK(row.state == model::State::kFailed);
  CHECK(row.outcome.reason == model::Reason::kError);
  CHECK(row.outcome.exit_code == 7);
  CHECK_FALSE(row.outcome.signal.has_value());
  CHECK(row.verdict == model::Verdict::kClean);
  CHECK(row.evidence_digest == "sha256:e");
  const ledger::Record record = ledger.record(kUid).value();
  CHECK(record.kind == "job");
  CHECK(record.envelope == "{}");
  CHECK(record.owner_uid == 1000);
  CHECK(ledger.inventory(kUid).value().empty());
  CHECK(ledger.unfinished().value().empty());
  CHECK(ledger.unclean().value().empty());
}

TEST_CASE("without a CLEAN verdict the inventory stays") {
  const Scratch scratch;
  Ledger ledger = Ledger::open(scratch.file()).value();
  REQUIRE(ledger.accept(job(), entry(model::State::kAccepted)).ok());
  REQUIRE(ledger.journal_for(kUid)->intend({{model::ItemKind::kCgroup, "/c", ""}}).ok());
  REQUIRE(ledger.seal(kUid, sealed(model::Verdict::kUnknown)).ok());
  CHECK(ledger.inventory(kUid).value().size() == 1);
  CHECK(ledger.unclean().value() == std::vector<std::string>{kUid});
}

TEST_CASE("refusals are records of their own and consume nothing") {
  const Scratch scratch;
  Ledger ledger = Ledger::open(scratch.file()).value();
  for (int i = 0; i < 3; ++i) {
    REQUIRE(ledger.seal_refusal({"", "sha256:x", model::Reason::kSignatureInvalid, {1000, 1000, 1}, "{}", "sha256:r"}).ok());
  }
  REQUIRE(ledger.seal_refusal({kUid, "sha256:y", model::Reason::kExpired, {1000, 1000, 1}, "{\"n\":1}", "sha256:r1"}).ok());
  CHECK(ledger.record(kUid).value().kind == "refusal");
  CHECK(ledger.record("").error().code() == base::Errc::kNotFound);
  CHECK(ledger.accept(job(), entry(model::State::kAccepted)).value() == Acceptance::kNew);
  REQUIRE(ledger.seal(kUid, sealed(model::Verdict::kClean)).ok());
  REQUIRE(ledger.seal_refusal({kUid, "sha256:z", model::Reason::kReplayed, {1001, 1001, 1}, "{}", "sha256:r2"}).ok());
  CHECK(ledger.record(kUid).value().kind == "job");

  ledger = Ledger::open(scratch.file("other.db")).value();  // gives the first file free
  std::int64_t refusals = 0;
  REQUIRE(ledger::Database::open(scratch.file()).value()->query("SELECT count(*) FROM records WHERE kind = 'refusal'", {},
                                                                [&](const ledger::Row& row) { refusals = row.integer(0); }).ok());
  CHECK(refusals == 5);
}

TEST_CASE("a peer finds its own refusal under a uid that others used too; without a peer the latest counts") {
  const Scratch scratch;
  Ledger ledger = Ledger::open(scratch.file()).value();
  const auto refuse = [&](std::uint32_t peer, const char* digest) {
    REQUIRE(ledger.seal_refusal({kUid, "sha256:y", model::Reason::kExpired, {peer, peer, 1}, "{}", digest}).ok());
  };
  refuse(1000, "sha256:mine");
  refuse(1001, "sha256:other");
  CHECK(ledger.record(kUid, 1000).value().digest == "sha256:mine");
  CHECK(ledger.record(kUid, 1001).value().digest == "sha256:other");
  CHECK(ledger.record(kUid, 1002).value().digest == "sha256:other");  // not theirs: owner_uid tells
  CHECK(ledger.record(kUid).value().digest == "sha256:other");
  refuse(1000, "sha256:mine-2");
  CHECK(ledger.record(kUid, 1000).value().digest == "sha256:mine-2");
}

TEST_CASE("a payload is found again under the peer that it was accepted from, and no other") {
  const Scratch scratch;
  Ledger ledger = Ledger::open(scratch.file()).value();
  const ledger::NewJob job = ledger_test::job();
  REQUIRE(ledger.accept(job, entry(model::State::kAccepted)).ok());
  CHECK(ledger.accepted_uid(job.spec_digest, job.peer.uid).value() == kUid);
  CHECK_FALSE(ledger.accepted_uid(job.spec_digest, job.peer.uid + 1).value().has_value());
  CHECK_FALSE(ledger.accepted_uid("sha256:other", job.peer.uid).value().has_value());
}

TEST_CASE("a list is newest first and bounded") {
  const Scratch scratch;
  Ledger ledger = Ledger::open(scratch.file()).value();
  for (const char* uid : {"a", "b", "c"}) {
    ledger::NewJob next = job();
    next.uid = uid;
    REQUIRE(ledger.accept(next, entry(model::State::kAccepted)).ok());
  }
  const std::vector<ledger::JobRow> rows = ledger.list(2).value();
  REQUIRE(rows.size() == 2);
  CHECK(rows[0].job.uid == "c");
  CHECK(rows[1].job.uid == "b");
}

TEST_CASE("many threads share the ledger") {
  const Scratch scratch;
  Ledger ledger = Ledger::open(scratch.file()).value();
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&ledger, t] {
        for (int i = 0; i < 10; ++i) {
          ledger::NewJob next = job();
          next.uid = std::to_string(t) + "-" + std::to_string(i);
          if (!ledger.accept(next, entry(model::State::kAccepted)).ok() ||
              !ledger.journal_for(next.uid)->intend({{model::ItemKind::kFile, "/f", ""}}).ok() ||
              !ledger.seal(next.uid, sealed(model::Verdict::kClean)).ok()) {
            return;
          }
        }
      });
    }
  }
  const std::vector<ledger::JobRow> rows = ledger.list(100).value();
  CHECK(std::count_if(rows.begin(), rows.end(), [](const ledger::JobRow& row) { return row.closed; }) == 40);
}
