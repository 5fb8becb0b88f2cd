#include "shim/loop.hpp"

#include <sys/epoll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <limits>

namespace cellrund::shim {

using base::Error;
using base::Result;
using base::Status;

Result<Loop> Loop::create() {
  base::UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) {
    return Error::from_errno("epoll_create1");
  }
  return Loop(std::move(epoll));
}

Status Loop::watch(int fd, std::uint32_t events, Callback callback) {
  const std::uint32_t generation = next_generation_++;
  epoll_event event{};
  event.events = events;
  event.data.u64 = (std::uint64_t{generation} << 32U) | static_cast<std::uint32_t>(fd);
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
    return Error::from_errno("epoll_ctl add");
  }
  watches_.insert_or_assign(fd, Watch{generation, std::make_shared<Callback>(std::move(callback))});
  return base::ok();
}

Status Loop::modify(int fd, std::uint32_t events) {
  const auto found = watches_.find(fd);
  if (found == watches_.end()) {
    return Error(base::Errc::kNotFound, "modify a watch: not watched");
  }
  epoll_event event{};
  event.events = events;
  event.data.u64 = (std::uint64_t{found->second.generation} << 32U) | static_cast<std::uint32_t>(fd);
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event) != 0) {
    return Error::from_errno("epoll_ctl mod");
  }
  return base::ok();
}

void Loop::unwatch(int fd) noexcept {
  if (watches_.erase(fd) != 0) {
    (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);  // fails only for a descriptor already closed
  }
}

void Loop::run_posted() {
  while (!posted_.empty() && !stopped_) {
    const std::function<void()> call = std::move(posted_.front());
    posted_.pop_front();
    call();
  }
}

Status Loop::run() {
  std::array<epoll_event, 32> ready{};
  while (run_posted(), !stopped_) {
    const int n = ::epoll_wait(epoll_.get(), ready.data(), static_cast<int>(ready.size()), -1);
    if (n < 0) {
      if (errno == EINTR) {
        continue;
      }
      return Error::from_errno("epoll_wait");
    }
    for (int i = 0; i < n && !stopped_; ++i) {
      const epoll_event& event = ready[static_cast<std::size_t>(i)];
      const int fd = static_cast<int>(event.data.u64 & std::numeric_limits<std::uint32_t>::max());
      const auto found = watches_.find(fd);
      if (found == watches_.end() || found->second.generation != event.data.u64 >> 32U) {
        continue;
      }
      const std::shared_ptr<Callback> callback = found->second.callback;  // survives its own unwatch()
      (*callback)(event.events);
      run_posted();
    }
  }
  return base::ok();
}

Result<std::unique_ptr<Timer>> Timer::create(Loop& loop, std::function<void()> expired) {
  constexpr base::BootTime kNever{std::numeric_limits<std::int64_t>::max() / 2};
  std::unique_ptr<Timer> timer(new Timer(loop, CR_TRY(base::boot_timer(kNever))));
  const int fd = timer->fd_.get();
  CR_CHECK(loop.watch(fd, EPOLLIN, [fd, expired = std::move(expired)](std::uint32_t) {
    std::uint64_t count = 0;
    // EAGAIN: re-armed between the event and this read; the new time has not come yet.
    if (::read(fd, &count, sizeof(count)) == static_cast<ssize_t>(sizeof(count))) {
      expired();
    }
  }));
  return timer;
}

Timer::~Timer() { loop_.unwatch(fd_.get()); }

Status Timer::arm(base::BootTime when) { return base::rearm_boot_timer(fd_.get(), when); }

void Timer::disarm() noexcept { (void)base::disarm_timer(fd_.get()); /* fails for a bad descriptor only */ }

}  // namespace cellrund::shim
