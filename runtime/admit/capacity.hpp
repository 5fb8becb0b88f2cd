// CapacityPool: what the node can still promise. A job enters the queue when it is accepted and becomes a Ticket when
// its turn comes; strictly first come, first served, so a large job cannot starve behind small ones.
//
// Capacity comes back only from a cell that was proven clean: Ticket::release(). A ticket that is dropped without a word
// (a crash of the step that held it, a forgotten path) is quarantined, exactly as one whose teardown was not CLEAN.
// Thread-safe. The pool outlives its places and tickets.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/clock.hpp"
#include "base/result.hpp"
#include "model/outcome.hpp"

namespace cellrund::admit {

struct CapacityLimits {
  std::uint64_t cpu_millis = 0;
  std::uint64_t memory_bytes = 0;
  std::uint32_t cells = 0;
  std::uint32_t queue = 0;  // places for jobs that must wait
};

// What one cell takes, the lane's own overhead (VMM, shim) included.
struct CapacityRequest {
  std::uint64_t cpu_millis = 0;
  std::uint64_t memory_bytes = 0;
};

// Why a cell of this size must not start at this moment although there is capacity, for people; empty: it may. Asked under
// the pool's lock, again and again while a job waits for it: it must be quick and not use the pool.
using HoldCheck = std::function<std::string(const CapacityRequest&)>;

struct CapacityUse {
  CapacityLimits total;
  std::uint64_t cpu_millis = 0, memory_bytes = 0;  // reserved, quarantined cells included
  std::uint32_t cells = 0;                         // live and quarantined
  std::uint32_t quarantined = 0;
  std::uint32_t queued = 0;
  std::string held;  // why the first of the queue waits although there is capacity
};

class CapacityPool;
struct CapacityState;

// A slot and its capacity, held by exactly one cell.
class Ticket {
 public:
  [[nodiscard]] std::uint32_t slot() const noexcept { return slot_; }  // 0 … cells-1, unique among live cells
  // Proven clean: slot and capacity return.
  void release() noexcept;
  // Not proven clean: slot and capacity stay taken.
  void quarantine() noexcept;

  Ticket(Ticket&& other) noexcept;
  Ticket& operator=(Ticket&& other) noexcept;
  Ticket(const Ticket&) = delete;
  Ticket& operator=(const Ticket&) = delete;
  ~Ticket();  // quarantines

 private:
  friend class CapacityPool;
  friend class Place;
  Ticket(CapacityState* state, std::uint32_t slot) noexcept : state_(state), slot_(slot) {}
  CapacityState* state_;  // null once settled
  std::uint32_t slot_;
};

// A place in the queue. Leaves it when dropped.
class Place {
 public:
  // Waits for the turn. StartDeadlineExceeded at the deadline, CancelledByUser once `cancelled` is true (set it, then
  // call CapacityPool::wake()). One call per place.
  base::Result<Ticket, model::Reason> wait(base::Deadline deadline, const std::atomic<bool>& cancelled);

  // Why the place, first in line, was held when wait() last looked; empty: it was not.
  [[nodiscard]] const std::string& held() const noexcept { return held_; }

  Place(Place&& other) noexcept;
  Place& operator=(Place&& other) noexcept;
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;
  ~Place();

 private:
  friend class CapacityPool;
  Place(CapacityState* state, std::uint64_t id) noexcept : state_(state), id_(id) {}
  void leave() noexcept;
  CapacityState* state_;  // null once it became a ticket
  std::uint64_t id_;
  std::string held_;
};

class CapacityPool {
 public:
  explicit CapacityPool(const CapacityLimits& limits, HoldCheck hold = {});
  CapacityPool(const CapacityPool&) = delete;
  CapacityPool& operator=(const CapacityPool&) = delete;
  CapacityPool(CapacityPool&&) = delete;
  CapacityPool& operator=(CapacityPool&&) = delete;
  ~CapacityPool();

  // NoCapacity when the job can never fit on this node or the queue is full. Never blocks. A job that is held waits in the
  // queue like one for which there is no capacity.
  base::Result<Place, model::Refusal> enter(const CapacityRequest& request);
  // The ticket of a cell that an earlier daemon left behind, before any enter(). Takes the slot even when the limits
  // have shrunk since (the cell exists); kAlreadyExists when the slot is taken, kInvalidArgument above kMaxSlot.
  base::Result<Ticket> adopt(std::uint32_t slot, const CapacityRequest& request);
  // Makes every Place::wait() look at its `cancelled` again.
  void wake();

  [[nodiscard]] CapacityUse use() const;

  static constexpr std::uint32_t kMaxSlot = 36U * 36U * 36U - 1;  // three digits in link names (model/node.hpp)

 private:
  std::unique_ptr<CapacityState> state_;
};

}  // namespace cellrund::admit
