// What is left after a crash, a full disk, or a wrong file.
#include <doctest/doctest.h>
#include <sys/resource.h>

#include <csignal>

#include "base/file.hpp"
#include "ledger/ledger.hpp"
#include "scratch.hpp"

using namespace cellrund;
using ledger::Acceptance;
using ledger::Ledger;
using ledger_test::entry;
using ledger_test::job;
using ledger_test::kUid;
using ledger_test::Scratch;
using ledger_test::sealed;

namespace {

// The files as they are on the disk at this moment: what a new process would find if this one died now.
void copy_as_after_a_crash(const Scratch& from, const Scratch& to) {
  for (const char* name : {"ledger.db", "ledger.db-wal"}) {
    const std::string content = base::read_file(from.file(name), std::size_t{64} << 20U).value();
    REQUIRE(base::write_file_atomic(to.file(name), content, 0600).ok());
  }
}

// Files of this process may not grow beyond `bytes` while it lives (setrlimit(2)); writes fail with EFBIG.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    before_handler_ = std::signal(SIGXFSZ, SIG_IGN);
    (void)::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    (void)::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    (void)::setrlimit(RLIMIT_FSIZE, &before_);
    (void)std::signal(SIGXFSZ, before_handler_);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;
  FileSizeLimit(FileSizeLimit&&) = delete;
  FileSizeLimit& operator=(FileSizeLimit&&) = delete;

 private:
  rlimit before_{};
  void (*before_handler_)(int) = nullptr;
};

}  // namespace

TEST_CASE("what was durable survives a crash, what was buffered does not half survive") {
  const Scratch live;
  const Scratch crashed;
  Ledger ledger = Ledger::open(live.file()).value();
  REQUIRE(ledger.accept(job(), entry(model::State::kAccepted)).ok());
  const std::unique_ptr<model::Journal> journal = ledger.journal_for(kUid);
  REQUIRE(journal->intend({{model::ItemKind::kProcess, "vmm", ""}}).ok());
  REQUIRE(ledger.advance(kUid, entry(model::State::kStarting)).ok());                   // buffered
  REQUIRE(journal->created({model::ItemKind::kProcess, "vmm", "100:200"}).ok());        // buffered
  copy_as_after_a_crash(live, crashed);
  CHECK(ledger.get(kUid).value()->state == model::State::kStarting);

  Ledger after = Ledger::open(crashed.file()).value();
  const std::vector<ledger::JobRow> unfinished = after.unfinished().value();
  REQUIRE(unfinished.size() == 1);
  CHECK(unfinished[0].state == model::State::kAccepted);
  CHECK(unfinished[0].job.envelope == job().envelope);
  CHECK(after.inventory(kUid).value() == model::Inventory{{model::ItemKind::kProcess, "vmm", ""}});
  CHECK(after.accept(job(), entry(model::State::kAccepted)).value() == Acceptance::kSame);
}

TEST_CASE("the next durable call carries everything buffered before it") {
  const Scratch live;
  const Scratch crashed;
  Ledger ledger = Ledger::open(live.file()).value();
  REQUIRE(ledger.accept(job(), entry(model::State::kAccepted)).ok());
  const std::unique_ptr<model::Journal> journal = ledger.journal_for(kUid);
  REQUIRE(journal->intend({{model::ItemKind::kProcess, "vmm", ""}}).ok());
  REQUIRE(journal->created({model::ItemKind::kProcess, "vmm", "100:200"}).ok());
  REQUIRE(ledger.advance(kUid, entry(model::State::kStarting)).ok());
  REQUIRE(ledger.exchange_boot_id("b").ok());
  copy_as_after_a_crash(live, crashed);

  Ledger after = Ledger::open(crashed.file()).value();
  CHECK(after.get(kUid).value()->state == model::State::kStarting);
  CHECK(after.inventory(kUid).value() == model::Inventory{{model::ItemKind::kProcess, "vmm", "100:200"}});
}

TEST_CASE("a crash right after sealing leaves exactly one record and the final state") {
  const Scratch live;
  const Scratch crashed;
  Ledger ledger = Ledger::open(live.file()).value();
  REQUIRE(ledger.accept(job(), entry(model::State::kAccepted)).ok());
  REQUIRE(ledger.seal(kUid, sealed(model::Verdict::kClean)).ok());
  copy_as_after_a_crash(live, crashed);

  Ledger after = Ledger::open(crashed.file()).value();
  CHECK(after.unfinished().value().empty());
  CHECK(after.record(kUid).value().digest == "sha256:e");
  CHECK(after.seal(kUid, sealed(model::Verdict::kClean)).error().code() == base::Errc::kAlreadyExists);
}

TEST_CASE("a write that cannot reach the disk stops the ledger for good and loses nothing committed") {
  const Scratch scratch;
  Ledger ledger = Ledger::open(scratch.file()).value();
  REQUIRE(ledger.accept(job(), entry(model::State::kAccepted)).ok());
  {
    const FileSizeLimit limit(64 * 1024);
    ledger::NewJob big = job();
    big.uid = "big";
    big.envelope.assign(256 * 1024, 'x');
    const base::Result<Acceptance> refused = ledger.accept(big, entry(model::State::kAccepted));
    REQUIRE_FALSE(refused.ok());
  }
  REQUIRE(ledger.stopped().has_value());
  // There is room again, but a failed write is never retried.
  const base::Status sealing = ledger.seal(kUid, sealed(model::Verdict::kClean));
  REQUIRE_FALSE(sealing.ok());
  CHECK(sealing.error().code() == base::Errc::kDataLoss);
  CHECK(ledger.exchange_boot_id("b").error().code() == base::Errc::kDataLoss);
  CHECK(ledger.get(kUid).value().has_value());
  CHECK_FALSE(ledger.get("big").value().has_value());

  ledger = Ledger::open(scratch.file("other.db")).value();  // gives the first file free
  Ledger reopened = Ledger::open(scratch.file()).value();
  CHECK(reopened.unfinished().value().size() == 1);
  CHECK(reopened.seal(kUid, sealed(model::Verdict::kClean)).ok());
}

TEST_CASE("only a ledger of this or an older version opens, and only once") {
  const Scratch scratch;
  SUBCASE("another holder") {
    const Ledger holder = Ledger::open(scratch.file()).value();
    const base::Result<Ledger> second = Ledger::open(scratch.file());
    REQUIRE_FALSE(second.ok());
    CHECK(second.error().code() == base::Errc::kUnavailable);
    CHECK(second.error().message() == "open ledger " + scratch.file() + ": another process holds it");
  }
  SUBCASE("no database") {
    REQUIRE(base::write_file_atomic(scratch.file(), std::string(8192, 'x'), 0600).ok());
    CHECK(Ledger::open(scratch.file()).error().code() == base::Errc::kDataLoss);
  }
  SUBCASE("a newer version") {
    { const Ledger made = Ledger::open(scratch.file()).value(); }
    std::string content = base::read_file(scratch.file(), std::size_t{1} << 20U).value();
    content[63] = 99;  // the low byte of user_version in the database header (sqlite.org/fileformat2.html, 1.3)
    REQUIRE(base::write_file_atomic(scratch.file(), content, 0600).ok());
    const base::Result<Ledger> opened = Ledger::open(scratch.file());
    REQUIRE_FALSE(opened.ok());
    CHECK(opened.error().code() == base::Errc::kFailedPrecondition);
  }
  SUBCASE("a missing folder") {
    CHECK(Ledger::open(scratch.file("none/ledger.db")).error().code() == base::Errc::kNotFound);
  }
}
