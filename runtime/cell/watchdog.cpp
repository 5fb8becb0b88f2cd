#include "cell/watchdog.hpp"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <map>
#include <thread>

#include "base/file.hpp"
#include "base/guarded.hpp"

namespace cellrund::cell {

using base::Error;

struct Watchdog::Impl {
  struct Entry {
    base::UniqueFd timer;
    KillTarget target;
    std::function<void(base::BootTime)> on_fired;
  };

  base::UniqueFd epoll;
  base::UniqueFd stop;
  std::atomic<std::uint64_t> next_id{1};  // 0 is the stop event's tag
  // Held only for map look-ups and for the kill itself, which never blocks.
  base::Guarded<std::map<std::uint64_t, Entry>> entries;
  std::jthread thread;

  void run() {
    for (;;) {
      std::array<epoll_event, 16> events{};
      const int n = ::epoll_wait(epoll.get(), events.data(), static_cast<int>(events.size()), -1);
      for (int i = 0; i < n; ++i) {
        const std::uint64_t id = events[static_cast<std::size_t>(i)].data.u64;
        if (id == 0) {
          return;
        }
        fire(id);
      }
    }
  }

  void fire(std::uint64_t id) {
    auto locked = entries.lock();
    const auto it = locked->find(id);
    if (it == locked->end()) {
      return;
    }
    // A second timer tick cannot come (it_interval is 0), but the descriptor stays readable until it is disarmed.
    (void)base::disarm_timer(it->second.timer.get());
    (void)kill_all(it->second.target);  // the supervisor sees survivors: their pidfds do not become readable
    if (it->second.on_fired) {
      it->second.on_fired(base::BootTime::now());
    }
  }
};

Watchdog::Watchdog(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}

base::Result<std::unique_ptr<Watchdog>> Watchdog::start() {
  auto impl = std::make_shared<Impl>();
  impl->epoll.reset(::epoll_create1(EPOLL_CLOEXEC));
  if (!impl->epoll) {
    return Error::from_errno("epoll_create1");
  }
  impl->stop.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!impl->stop) {
    return Error::from_errno("eventfd");
  }
  epoll_event event{.events = EPOLLIN, .data = {.u64 = 0}};
  if (::epoll_ctl(impl->epoll.get(), EPOLL_CTL_ADD, impl->stop.get(), &event) != 0) {
    return Error::from_errno("epoll_ctl");
  }
  impl->thread = std::jthread([raw = impl.get()] { raw->run(); });
  return std::unique_ptr<Watchdog>(new Watchdog(std::move(impl)));
}

Watchdog::~Watchdog() {
  const std::uint64_t one = 1;
  (void)!::write(impl_->stop.get(), &one, sizeof one);  // an eventfd below its maximum always takes it
  if (impl_->thread.joinable()) {
    impl_->thread.join();
  }
}

base::Result<Watchdog::Lease> Watchdog::arm(base::BootTime when, KillTarget target,
                                            std::function<void(base::BootTime)> on_fired) {
  Impl::Entry entry{CR_TRY(base::boot_timer(when)), std::move(target), std::move(on_fired)};
  const int timer = entry.timer.get();
  const std::uint64_t id = impl_->next_id++;
  impl_->entries.lock()->emplace(id, std::move(entry));
  Lease lease(impl_, id);
  epoll_event event{.events = EPOLLIN, .data = {.u64 = id}};
  if (::epoll_ctl(impl_->epoll.get(), EPOLL_CTL_ADD, timer, &event) != 0) {
    return Error::from_errno("epoll_ctl");
  }
  return lease;
}

Watchdog::Lease& Watchdog::Lease::operator=(Lease&& other) noexcept {
  if (this != &other) {
    if (impl_) {
      (void)impl_->entries.lock()->erase(id_);
    }
    impl_ = std::move(other.impl_);
    id_ = other.id_;
  }
  return *this;
}

Watchdog::Lease::~Lease() {
  if (impl_) {
    (void)impl_->entries.lock()->erase(id_);  // closes the timer, which leaves the epoll set with it
  }
}

void Watchdog::Lease::kill_now() {
  auto locked = impl_->entries.lock();
  if (const auto it = locked->find(id_); it != locked->end()) {
    (void)kill_all(it->second.target);  // survivors show by their pidfds
  }
}

std::vector<std::string> kill_all(const KillTarget& target) {
  std::vector<std::string> failures;
  if (target.cgroup_kill) {
    if (auto status = base::write_all(target.cgroup_kill.get(), base::as_bytes("1")); !status.ok()) {
      failures.push_back("cgroup.kill: " + status.error().message());
    }
  }
  for (const base::PidFd& process : target.processes) {
    if (auto status = process.signal(SIGKILL); !status.ok()) {
      failures.push_back(status.error().message());
    }
  }
  return failures;
}

}  // namespace cellrund::cell
