#include "netpolicy/closer.hpp"

namespace cellrund::netpolicy {

Closer::Closer() : thread_([this] { run(); }) {}

Closer::~Closer() {
  queue_.lock()->ending = true;
  changed_.notify_one();
}

void Closer::close_later(base::UniqueFd fd) {
  queue_.lock()->fds.push_back(std::move(fd));
  changed_.notify_one();
}

void Closer::run() {
  constexpr auto kIdle = std::chrono::hours(1);  // bounds the wait; nothing depends on it
  while (true) {
    std::vector<base::UniqueFd> batch;
    {
      auto queue = queue_.lock();
      while (queue->fds.empty() && !queue->ending) {
        queue.wait(changed_, base::Deadline::after(kIdle));
      }
      if (queue->fds.empty()) {
        return;
      }
      batch.swap(queue->fds);
    }
  }  // the batch closes here, without the lock
}

}  // namespace cellrund::netpolicy
