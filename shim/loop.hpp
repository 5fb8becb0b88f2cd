// The shim's event loop: one epoll instance, one thread. Everything the shim does after start-up happens in a callback
// of this loop, so that nothing in the shim needs a lock, and fork(2) is safe (man 7 epoll, man 2 timerfd_create).
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <unordered_map>

#include "base/clock.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"

namespace cellrund::shim {

class Loop {
 public:
  // `events` is epoll's mask (EPOLLIN, EPOLLOUT, EPOLLHUP …).
  using Callback = std::function<void(std::uint32_t events)>;

  static base::Result<Loop> create();

  // The descriptor stays the caller's and must be unwatched before it is closed. A callback may watch and unwatch
  // anything, itself included.
  base::Status watch(int fd, std::uint32_t events, Callback callback);
  base::Status modify(int fd, std::uint32_t events);
  void unwatch(int fd) noexcept;

  // Runs `call` when the present callback has returned: the place to destroy what may stand in the call chain.
  void post(std::function<void()> call) { posted_.push_back(std::move(call)); }

  // Until stop(). An error is epoll's own.
  base::Status run();
  void stop() noexcept { stopped_ = true; }

 private:
  struct Watch {
    std::uint32_t generation;  // a recycled descriptor number never receives its predecessor's event
    std::shared_ptr<Callback> callback;
  };
  void run_posted();
  explicit Loop(base::UniqueFd epoll) : epoll_(std::move(epoll)) {}

  base::UniqueFd epoll_;
  std::unordered_map<int, Watch> watches_;
  std::deque<std::function<void()>> posted_;
  std::uint32_t next_generation_ = 1;
  bool stopped_ = false;
};

// A timer on CLOCK_BOOTTIME that calls back on the loop. The loop outlives it.
class Timer {
 public:
  static base::Result<std::unique_ptr<Timer>> create(Loop& loop, std::function<void()> expired);
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;
  Timer(Timer&&) = delete;
  Timer& operator=(Timer&&) = delete;
  ~Timer();

  base::Status arm(base::BootTime when);
  base::Status arm_after(base::Nanoseconds delay) { return arm(base::BootTime::now() + delay); }
  void disarm() noexcept;

 private:
  Timer(Loop& loop, base::UniqueFd fd) : loop_(loop), fd_(std::move(fd)) {}
  Loop& loop_;
  base::UniqueFd fd_;
};

}  // namespace cellrund::shim
