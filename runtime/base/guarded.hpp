// Guarded<T>: shared state that cannot be touched without its lock.
#pragma once

#include <condition_variable>
#include <mutex>
#include <utility>

#include "base/clock.hpp"

namespace cellrund::base {

template <typename T>
class Guarded {
 public:
  Guarded() = default;
  explicit Guarded(T value) : value_(std::move(value)) {}

  class Lock {
   public:
    T& operator*() noexcept { return *value_; }
    T* operator->() noexcept { return value_; }
    // Releases the lock, waits for a notify or the deadline, takes the lock again. Spurious wake-ups happen.
    void wait(std::condition_variable& changed, Deadline deadline) { (void)changed.wait_for(lock_, deadline.remaining()); }

   private:
    friend class Guarded;
    Lock(std::mutex& mutex, T& value) : lock_(mutex), value_(&value) {}
    std::unique_lock<std::mutex> lock_;
    T* value_;
  };

  [[nodiscard]] Lock lock() { return Lock(mutex_, value_); }

 private:
  std::mutex mutex_;
  T value_{};
};

}  // namespace cellrund::base
