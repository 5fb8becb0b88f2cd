#include "cell/job_table.hpp"

#include <doctest/doctest.h>

#include <thread>

#include "base/file.hpp"

using namespace cellrund;
using namespace std::chrono_literals;

namespace {

std::shared_ptr<cell::CancelFlag> flag() {
  auto made = cell::CancelFlag::create();
  REQUIRE(made.ok());
  return *made;
}

cell::JobView view(const std::string& uid) {
  cell::JobView v;
  v.uid = uid;
  return v;
}

}  // namespace

TEST_CASE("a waiter wakes when its job changes") {
  cell::JobTable table;
  table.insert(view("a"), flag());
  std::jthread changer([&] { table.update("a", [](cell::JobView& v) { v.state = model::State::kRunning; }); });
  while (table.get("a")->version == 0) {
    table.wait_change("a", 0, 0, base::Deadline::after(10s));
  }
  CHECK(table.get("a")->state == model::State::kRunning);
}

TEST_CASE("a waiter wakes when the log grows, and gives up at its deadline") {
  cell::JobTable table;
  table.insert(view("a"), flag());
  table.wait_change("a", 0, 0, base::Deadline::after(1ms));
  CHECK(table.get("a")->version == 0);
  table.set_log_bytes("a", 10);
  table.wait_change("a", 0, 0, base::Deadline::after(10s));
  CHECK(table.log_bytes("a") == 10);
}

TEST_CASE("the newest job comes first and the list is bounded") {
  cell::JobTable table;
  for (const char* uid : {"a", "b", "c"}) {
    table.insert(view(uid), flag());
  }
  const auto jobs = table.list(2);
  REQUIRE(jobs.size() == 2);
  CHECK(jobs[0].uid == "c");
  CHECK(jobs[1].uid == "b");
}

TEST_CASE("the first cancellation wins and its descriptor becomes readable") {
  const auto cancel = flag();
  CHECK_FALSE(cancel->raised());
  cancel->raise(cell::CancelCause::kOperator);
  cancel->raise(cell::CancelCause::kUser);
  CHECK(cancel->cause() == cell::CancelCause::kOperator);
  const auto ready = base::wait_readable(cancel->fd(), base::Deadline::after(10s));
  REQUIRE(ready.ok());
  CHECK(*ready);
}
