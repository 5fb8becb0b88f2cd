// Reaps every child of the shim, adopted orphans included (the shim is a subreaper, prctl(2)), and tells whoever waits
// for one. SIGCHLD is blocked and read from a signalfd. The loop outlives it; so do those it calls back.
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <unordered_map>

#include "base/fd.hpp"
#include "base/process.hpp"
#include "base/result.hpp"
#include "shim/loop.hpp"

namespace cellrund::shim {

class Children {
 public:
  using Callback = std::function<void(base::ExitStatus)>;

  static base::Result<std::unique_ptr<Children>> create(Loop& loop);
  Children(const Children&) = delete;
  Children& operator=(const Children&) = delete;
  Children(Children&&) = delete;
  Children& operator=(Children&&) = delete;
  ~Children();

  // Precondition: `pid` is a child that this loop has not reaped. Called once, unless forgotten before.
  void on_exit(pid_t pid, Callback callback);
  // The child is still reaped, silently.
  void forget(pid_t pid) noexcept;

 private:
  Children(Loop& loop, base::UniqueFd signals) : loop_(loop), signals_(std::move(signals)) {}
  void reap();

  Loop& loop_;
  base::UniqueFd signals_;
  std::unordered_map<pid_t, Callback> waiting_;
};

}  // namespace cellrund::shim
