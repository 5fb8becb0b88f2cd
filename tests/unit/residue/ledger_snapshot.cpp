// cellsweep's view of a ledger that the real one wrote.
#include "ledger_snapshot.hpp"

#include <doctest/doctest.h>
#include <sys/stat.h>

#include "../ledger/scratch.hpp"
#include "base/file.hpp"
#include "ledger/ledger.hpp"

using namespace cellrund;
using ledger_test::entry;
using ledger_test::job;
using ledger_test::kUid;
using ledger_test::Scratch;
using model::ItemKind;

TEST_CASE("a missing ledger is NOT_FOUND, another file is no ledger") {
  const Scratch scratch;
  CHECK(cellsweep::read_ledger(scratch.file()).error().code() == base::Errc::kNotFound);
  REQUIRE(base::write_file_atomic(scratch.file(), "not a database, and long enough to be read as the header of one ....."
                                                  "....................................", 0600).ok());
  CHECK(!cellsweep::read_ledger(scratch.file()).ok());
}

TEST_CASE("the copy has tag, boot and journal, tells a held ledger from a free one, and leaves the file alone") {
  const Scratch scratch;
  std::string tag;
  {
    auto ledger = ledger::Ledger::open(scratch.file());
    REQUIRE(ledger.ok());
    tag = ledger->node_tag().value;
    REQUIRE(ledger->exchange_boot_id("00000000-0000-0000-0000-000000000001").ok());
    REQUIRE(ledger->accept(job(), entry(model::State::kAccepted)).ok());
    const auto journal = ledger->journal_for(kUid);
    REQUIRE(journal->intend({{ItemKind::kNetns, "/run/x", ""}, {ItemKind::kBpfMap, "m", ""}}).ok());
    REQUIRE(journal->created({ItemKind::kNetns, "/run/x", "4:5:6"}).ok());

    const auto held = cellsweep::read_ledger(scratch.file());
    REQUIRE_MESSAGE(held.ok(), (held.ok() ? "" : held.error().message()));
    CHECK(held->held);
    CHECK(held->cells.size() == 1);
  }
  struct stat before {};
  struct stat after {};
  REQUIRE(::stat(scratch.file().c_str(), &before) == 0);
  const auto snapshot = cellsweep::read_ledger(scratch.file());
  REQUIRE(::stat(scratch.file().c_str(), &after) == 0);
  REQUIRE_MESSAGE(snapshot.ok(), (snapshot.ok() ? "" : snapshot.error().message()));
  CHECK(!snapshot->held);
  CHECK(snapshot->node.value == tag);
  REQUIRE(snapshot->cells.size() == 1);
  CHECK(snapshot->cells[0].uid == kUid);
  CHECK(!snapshot->cells[0].closed);
  CHECK(snapshot->cells[0].boot_id == "00000000-0000-0000-0000-000000000001");
  CHECK(snapshot->cells[0].inventory ==
        model::Inventory{{ItemKind::kNetns, "/run/x", "4:5:6"}, {ItemKind::kBpfMap, "m", ""}});
  CHECK(before.st_mtim.tv_nsec == after.st_mtim.tv_nsec);
  CHECK(before.st_size == after.st_size);
}
