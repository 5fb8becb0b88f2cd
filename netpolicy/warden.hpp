// Warden: one thread that holds every live cell's proof against the kernel twice a second, and renews the cell's lease
// only while it holds. So what the policy allows stops by itself when the filter was tampered with, and within kLease when
// this process dies or hangs: the filter compares the lease with its own clock.
//
// It also takes what the filters sampled out of their rings, so that a ring is full only when nobody has looked for long.
//
// The thread lives in the router namespace and serves nothing else. It keeps no descriptor of any cell's objects.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>

#include "base/clock.hpp"
#include "base/guarded.hpp"
#include "base/result.hpp"
#include "netpolicy/proof.hpp"
#include "netpolicy/samples.hpp"

namespace cellrund::netpolicy {

enum class Alarm {
  kUnproven,  // the filter is not what was proven; the cell's network has been killed
  kQuota,     // the job's quota is used up; nothing passes any more
};

class Warden {
 public:
  static constexpr std::chrono::milliseconds kInterval{500};
  static constexpr std::chrono::seconds kLease{8};

  // Called at most once per alarm and cell, on the warden's thread and under its lock: it must neither block nor call back.
  using OnAlarm = std::function<void(Alarm alarm, const std::string& why)>;

  // The cell is watched while this lives. Movable; must not outlive the warden.
  class Watch {
   public:
    Watch(Watch&& other) noexcept
        : warden_(std::exchange(other.warden_, nullptr)), id_(other.id_), samples_(std::move(other.samples_)) {}
    Watch& operator=(Watch&& other) noexcept {
      std::swap(warden_, other.warden_);
      std::swap(id_, other.id_);
      std::swap(samples_, other.samples_);
      return *this;
    }
    Watch(const Watch&) = delete;
    Watch& operator=(const Watch&) = delete;
    ~Watch();

    // Of the cell, so far.
    [[nodiscard]] Samples& samples() const noexcept { return *samples_; }

   private:
    friend class Warden;
    Watch(Warden* warden, std::uint64_t id, std::shared_ptr<Samples> samples)
        : warden_(warden), id_(id), samples_(std::move(samples)) {}
    Warden* warden_;
    std::uint64_t id_;
    std::shared_ptr<Samples> samples_;
  };

  // `router_netns` is borrowed. Throws std::system_error when no thread can be started.
  explicit Warden(int router_netns);
  Warden(const Warden&) = delete;
  Warden& operator=(const Warden&) = delete;
  Warden(Warden&&) = delete;
  Warden& operator=(Warden&&) = delete;
  ~Warden();

  // Gives the cell its first lease. Thread-safe.
  base::Result<Watch> watch(const Proof& proof, OnAlarm on_alarm);

  // Of a cell that is watched; null: it is not. Thread-safe.
  [[nodiscard]] std::shared_ptr<Samples> samples_of(const model::CellName& name);

 private:
  struct Ward {
    Proof proof;
    OnAlarm on_alarm;
    std::shared_ptr<Samples> samples;
    std::uint64_t sample_ns = 0;  // cr_usage.sample_ns when they were last taken
    unsigned unseen = 0;  // times in a row that the proof could not be looked at
    bool unproven = false;
    bool over_quota = false;
  };
  struct State {
    std::map<std::uint64_t, Ward> wards;
    std::uint64_t next_id = 1;
    bool ending = false;
  };
  void run();
  static void look_at(Ward& ward, Rtnl& rtnl);

  int router_netns_;
  base::Guarded<State> state_;
  std::condition_variable changed_;
  std::jthread thread_;  // last: starts when the rest exists
};

}  // namespace cellrund::netpolicy
