#include "cell/watchdog.hpp"

#include <doctest/doctest.h>
#include <signal.h>

#include <future>

using namespace cellrund;
using namespace std::chrono_literals;

namespace {

base::PidFd sleeper() {
  auto child = base::spawn({.argv = {"/bin/sleep", "1000"}});
  REQUIRE(child.ok());
  return std::move(child).value();
}

cell::KillTarget target_of(const base::PidFd& process) {
  cell::KillTarget target;
  auto copy = base::PidFd::open(process.id());
  REQUIRE(copy.ok());
  target.processes.push_back(std::move(copy).value());
  return target;
}

bool killed(const base::PidFd& process) {
  const auto exit = process.reap(base::Deadline::after(10s));
  return exit.ok() && exit->has_value() && (*exit)->signaled && (*exit)->value == SIGKILL;
}

}  // namespace

TEST_CASE("a process is killed when its time comes, and not before") {
  auto watchdog = cell::Watchdog::start();
  REQUIRE(watchdog.ok());
  const base::PidFd process = sleeper();
  std::promise<base::BootTime> fired;
  const base::BootTime when = base::BootTime::now() + 50ms;
  auto lease = (*watchdog)->arm(when, target_of(process), [&](base::BootTime at) { fired.set_value(at); });
  REQUIRE(lease.ok());
  CHECK(base::is_alive(process.id()));
  auto at = fired.get_future();
  REQUIRE(at.wait_for(10s) == std::future_status::ready);
  CHECK(at.get() >= when);
  CHECK(killed(process));
}

TEST_CASE("a lease that is given up leaves its process alone") {
  auto watchdog = cell::Watchdog::start();
  REQUIRE(watchdog.ok());
  const base::PidFd spared = sleeper();
  const base::PidFd doomed = sleeper();
  const base::BootTime when = base::BootTime::now() + 50ms;
  std::promise<void> fired;
  {
    auto lease = (*watchdog)->arm(when, target_of(spared), [](base::BootTime) {});
    REQUIRE(lease.ok());
  }
  auto lease = (*watchdog)->arm(when + 20ms, target_of(doomed), [&](base::BootTime) { fired.set_value(); });
  REQUIRE(lease.ok());
  REQUIRE(fired.get_future().wait_for(10s) == std::future_status::ready);
  CHECK(killed(doomed));
  CHECK(base::is_alive(spared.id()));
  REQUIRE(spared.signal(SIGKILL).ok());
  CHECK(killed(spared));
}

TEST_CASE("kill_now does not wait for the deadline") {
  auto watchdog = cell::Watchdog::start();
  REQUIRE(watchdog.ok());
  const base::PidFd process = sleeper();
  auto lease = (*watchdog)->arm(base::BootTime::now() + 1h, target_of(process), [](base::BootTime) {});
  REQUIRE(lease.ok());
  lease->kill_now();
  CHECK(killed(process));
}
