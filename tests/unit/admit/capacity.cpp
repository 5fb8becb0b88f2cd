#include "admit/capacity.hpp"

#include <doctest/doctest.h>

#include <set>
#include <thread>
#include <vector>

#include "base/guarded.hpp"

using namespace cellrund;
using namespace std::chrono_literals;
using admit::CapacityPool;
using base::Deadline;
using model::Reason;

namespace {

constexpr admit::CapacityLimits kFour{.cpu_millis = 4000, .memory_bytes = 4096, .cells = 4, .queue = 2};
constexpr admit::CapacityRequest kOne{1000, 1024};
const std::atomic<bool> kNever{false};

admit::Ticket now(CapacityPool& pool, const admit::CapacityRequest& request = kOne) {
  auto place = pool.enter(request);
  REQUIRE(place.ok());
  auto ticket = place->wait(Deadline::after(0ms), kNever);
  REQUIRE(ticket.ok());
  return std::move(*ticket);
}

}  // namespace

TEST_CASE("capacity is taken by tickets and comes back on release only") {
  CapacityPool pool(kFour);
  {
    admit::Ticket a = now(pool);
    admit::Ticket b = now(pool);
    CHECK(a.slot() == 0);
    CHECK(b.slot() == 1);
    CHECK(pool.use().cpu_millis == 2000);
    CHECK(pool.use().memory_bytes == 2048);
    CHECK(pool.use().cells == 2);
    a.release();
    a.release();  // settled: nothing happens
    CHECK(pool.use().cells == 1);
  }
  // b was dropped without a word.
  CHECK(pool.use().cells == 1);
  CHECK(pool.use().quarantined == 1);
  CHECK(now(pool).slot() == 0);  // and dropped again: quarantined too
  CHECK(now(pool).slot() == 2);
  CHECK(pool.use().quarantined == 3);
}

TEST_CASE("a job that can never fit is refused at once") {
  CapacityPool pool(kFour);
  for (const admit::CapacityRequest& request : {admit::CapacityRequest{4001, 1}, {1, 4097}, {UINT64_MAX, UINT64_MAX}}) {
    const auto place = pool.enter(request);
    REQUIRE_FALSE(place.ok());
    CHECK(place.error().reason == Reason::kNoCapacity);
  }
  CHECK(pool.enter({4000, 4096}).ok());
  CapacityPool none({});
  CHECK_FALSE(none.enter({0, 0}).ok());
}

TEST_CASE("the queue has an end, and a place that is left is free again") {
  CapacityPool pool(kFour);
  admit::Ticket all = now(pool, {4000, 4096});
  auto first = pool.enter(kOne);
  auto second = pool.enter(kOne);
  REQUIRE(first.ok());
  REQUIRE(second.ok());
  CHECK(pool.enter(kOne).error().reason == Reason::kNoCapacity);
  CHECK(pool.use().queued == 2);
  {
    const admit::Place leaves = std::move(*first);
  }
  CHECK(pool.use().queued == 1);
  CHECK(pool.enter(kOne).ok());
  all.release();
}

TEST_CASE("nobody overtakes the head of the line") {
  CapacityPool pool(kFour);
  admit::Ticket a = now(pool, {3000, 1024});
  auto large = pool.enter({4000, 1024});
  auto small = pool.enter(kOne);  // would fit right now
  REQUIRE(large.ok());
  REQUIRE(small.ok());
  CHECK(pool.use().queued == 2);
  a.release();
  CHECK(pool.use().queued == 1);
  auto ticket = large->wait(Deadline::after(0ms), kNever);
  REQUIRE(ticket.ok());
  ticket->release();
  CHECK(pool.use().queued == 0);
}

TEST_CASE("a place that was granted and then dropped gives its capacity back") {
  CapacityPool pool(kFour);
  {
    auto place = pool.enter(kOne);
    REQUIRE(place.ok());
    CHECK(pool.use().cells == 1);
  }
  CHECK(pool.use().cells == 0);
  CHECK(pool.use().quarantined == 0);
}

TEST_CASE("waiting ends at the deadline") {
  CapacityPool pool(kFour);
  admit::Ticket all = now(pool, {4000, 4096});
  auto place = pool.enter(kOne);
  REQUIRE(place.ok());
  const auto ticket = place->wait(Deadline::after(20ms), kNever);
  REQUIRE_FALSE(ticket.ok());
  CHECK(ticket.error() == Reason::kStartDeadlineExceeded);
  CHECK(pool.use().queued == 0);
  all.release();
}

TEST_CASE("waiting ends when it is cancelled") {
  CapacityPool pool(kFour);
  admit::Ticket all = now(pool, {4000, 4096});
  auto place = pool.enter(kOne);
  REQUIRE(place.ok());
  std::atomic<bool> cancelled{false};
  std::jthread canceller([&] {
    cancelled = true;
    pool.wake();
  });
  const auto ticket = place->wait(Deadline::after(60s), cancelled);
  REQUIRE_FALSE(ticket.ok());
  CHECK(ticket.error() == Reason::kCancelledByUser);
  CHECK(pool.use().queued == 0);
  all.release();
}

TEST_CASE("a cell of an earlier daemon keeps its slot") {
  CapacityPool pool(kFour);
  auto old = pool.adopt(0, kOne);
  REQUIRE(old.ok());
  CHECK_FALSE(pool.adopt(0, kOne).ok());
  CHECK_FALSE(pool.adopt(CapacityPool::kMaxSlot + 1, kOne).ok());
  auto beyond = pool.adopt(9, {9000, 9000});  // the limits have shrunk since
  REQUIRE(beyond.ok());
  auto place = pool.enter(kOne);
  REQUIRE(place.ok());
  CHECK(pool.use().queued == 1);
  beyond->release();
  CHECK(pool.use().queued == 0);
  CHECK(place->wait(Deadline::after(0ms), kNever)->slot() == 1);
  old->release();
}

TEST_CASE("under many threads no slot is given twice and everything comes back") {
  CapacityPool pool({.cpu_millis = 4000, .memory_bytes = 1U << 20U, .cells = 4, .queue = 1000});
  base::Guarded<std::set<std::uint32_t>> live;
  std::atomic<int> done{0};
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 8; ++t) {
      threads.emplace_back([&] {
        for (int i = 0; i < 50; ++i) {
          auto place = pool.enter(kOne);
          if (!place.ok()) {
            return;
          }
          auto ticket = place->wait(Deadline::after(60s), kNever);
          if (!ticket.ok()) {
            return;
          }
          const std::uint32_t slot = ticket->slot();
          if (!live.lock()->insert(slot).second) {
            return;
          }
          live.lock()->erase(slot);
          ticket->release();
          ++done;
        }
      });
    }
  }
  CHECK(done == 400);
  CHECK(pool.use().cells == 0);
  CHECK(pool.use().cpu_millis == 0);
  CHECK(pool.use().queued == 0);
}

TEST_CASE("a job is held in the queue while the host has no memory to spare, and starts when it has") {
  std::atomic<bool> short_of_memory{true};
  CapacityPool pool(kFour, [&](const admit::CapacityRequest& request) {
    CHECK(request.memory_bytes == kOne.memory_bytes);
    return short_of_memory ? std::string("memory is short") : std::string();
  });
  auto impatient = pool.enter(kOne);
  REQUIRE(impatient.ok());
  CHECK(pool.use().held == "memory is short");
  CHECK(pool.use().queued == 1);
  CHECK(impatient->wait(Deadline::after(0ms), kNever).error() == Reason::kStartDeadlineExceeded);
  CHECK(impatient->held() == "memory is short");
  CHECK(pool.use().held.empty());

  auto patient = pool.enter(kOne);
  auto second = pool.enter(kOne);
  REQUIRE(patient.ok());
  REQUIRE(second.ok());
  const auto refused = pool.enter(kOne);
  REQUIRE_FALSE(refused.ok());
  CHECK(refused.error().reason == Reason::kNoCapacity);
  std::thread relief([&] { short_of_memory = false; });  // nobody notifies the pool
  auto ticket = patient->wait(Deadline::after(60s), kNever);
  relief.join();
  REQUIRE(ticket.ok());
  CHECK(second->wait(Deadline::after(60s), kNever).ok());
  CHECK(pool.use().held.empty());
  ticket->release();
}

TEST_CASE("a job that is held and finds no place in the queue is told why") {
  CapacityPool pool({.cpu_millis = 4000, .memory_bytes = 4096, .cells = 4, .queue = 0},
                    [](const admit::CapacityRequest&) { return std::string("memory is short"); });
  const auto refused = pool.enter(kOne);
  REQUIRE_FALSE(refused.ok());
  CHECK(refused.error().message.starts_with("memory is short"));
}
