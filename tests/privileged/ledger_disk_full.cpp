// A ledger on a disk that fills up: writing stops for good, nothing committed is lost, and no job is half accepted.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>
#include <unistd.h>

#include <cstdio>

#include "base/file.hpp"
#include "ledger/ledger.hpp"
#include "tests/support/small_disk.hpp"

using namespace cellrund;
using ledger::Acceptance;
using ledger::Ledger;
using test::SmallDisk;

namespace {

ledger::NewJob job(int number) {
  ledger::NewJob job;
  job.uid = "job-" + std::to_string(number);
  job.spec_digest = "sha256:" + std::to_string(number);
  job.envelope.assign(16UL * 1024, 'x');
  return job;
}

model::TimelineEntry accepted() { return {model::State::kAccepted, {1700000000, 0}, {1}, ""}; }

ledger::Sealed sealed() {
  ledger::Sealed sealed;
  sealed.final = {model::State::kSucceeded, {1700000001, 0}, {2}, ""};
  sealed.outcome = {model::State::kSucceeded, model::Reason::kCompleted, 0, std::nullopt, ""};
  sealed.verdict = model::Verdict::kClean;
  sealed.envelope = "{}";
  sealed.digest = "sha256:e";
  return sealed;
}

}  // namespace

TEST_CASE("a full disk stops the ledger; with room again a new process goes on from what was committed") {
  const SmallDisk disk("1m");
  REQUIRE(disk.mounted());
  int durable = 0;
  {
    Ledger ledger = Ledger::open(disk.file("ledger.db")).value();
    for (; durable < 1000; ++durable) {
      const base::Result<Acceptance> accepted_now = ledger.accept(job(durable), accepted());
      if (!accepted_now.ok()) {
        break;
      }
      CHECK(*accepted_now == Acceptance::kNew);
    }
    REQUIRE(durable > 0);
    REQUIRE(durable < 1000);
    CHECK(ledger.stopped().has_value());
    disk.grow("8m");
    // Never retried in this process: not even what would now succeed.
    CHECK(ledger.accept(job(2000), accepted()).error().code() == base::Errc::kDataLoss);
    CHECK(ledger.seal("job-0", sealed()).error().code() == base::Errc::kDataLoss);
    CHECK(ledger.get("job-0").value().has_value());
  }
  Ledger after = Ledger::open(disk.file("ledger.db")).value();
  CHECK_FALSE(after.stopped().has_value());
  CHECK(after.unfinished().value().size() == static_cast<std::size_t>(durable));
  CHECK(after.accept(job(durable), accepted()).value() == Acceptance::kNew);
  CHECK(after.accept(job(0), accepted()).value() == Acceptance::kSame);
  CHECK(after.seal("job-0", sealed()).ok());
}

TEST_CASE("no room for a ledger at all is an error with a cause") {
  const SmallDisk disk("4k");
  REQUIRE(disk.mounted());
  const base::Result<Ledger> ledger = Ledger::open(disk.file("ledger.db"));
  REQUIRE_FALSE(ledger.ok());
  CHECK(ledger.error().message().starts_with("open ledger " + disk.file("ledger.db") + ": "));
}

int main(int argc, char** argv) {
  if (::geteuid() != 0) {
    (void)std::fprintf(stderr, "skipped: needs root\n");
    return 77;
  }
  if (const SmallDisk probe("64k"); !probe.mounted()) {
    (void)std::fprintf(stderr, "skipped: needs permission to mount a tmpfs\n");
    return 77;
  }
  doctest::Context context(argc, argv);
  return context.run();
}
