#include "admit/capacity.hpp"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <map>
#include <string>
#include <utility>

#include "base/guarded.hpp"

namespace cellrund::admit {

using base::Errc;
using base::Error;
using model::Reason;
using model::Refusal;

namespace {

constexpr base::Nanoseconds kHoldInterval = std::chrono::milliseconds(250);

}  // namespace

struct CapacityState {
  struct Cell {
    CapacityRequest request;
    bool quarantined = false;
  };
  struct Waiting {
    std::uint64_t id;
    CapacityRequest request;
  };
  struct Shared {
    std::uint64_t cpu_millis = 0, memory_bytes = 0;  // sums over `cells`
    std::map<std::uint32_t, Cell> cells;             // by slot
    std::deque<Waiting> queue;                       // in order of arrival
    std::map<std::uint64_t, std::uint32_t> granted;  // place id → slot, not yet fetched by its wait()
    std::uint64_t next_id = 0;
  };

  CapacityState(const CapacityLimits& l, HoldCheck h) : limits(l), hold(std::move(h)) {}

  const CapacityLimits limits;
  const HoldCheck hold;
  base::Guarded<Shared> shared;
  std::condition_variable changed;

  [[nodiscard]] bool fits(const Shared& s, const CapacityRequest& request) const noexcept {
    return s.cells.size() < limits.cells && request.cpu_millis <= limits.cpu_millis - std::min(s.cpu_millis, limits.cpu_millis) &&
           request.memory_bytes <= limits.memory_bytes - std::min(s.memory_bytes, limits.memory_bytes);
  }
  [[nodiscard]] std::string held(const CapacityRequest& request) const { return hold ? hold(request) : std::string(); }
  static void take(Shared& s, std::uint32_t slot, const CapacityRequest& request) {
    s.cells.emplace(slot, Cell{request});
    s.cpu_millis += request.cpu_millis;
    s.memory_bytes += request.memory_bytes;
  }
  static void give_back(Shared& s, std::uint32_t slot) {
    const auto cell = s.cells.find(slot);
    CR_ASSERT(cell != s.cells.end());
    s.cpu_millis -= cell->second.request.cpu_millis;
    s.memory_bytes -= cell->second.request.memory_bytes;
    s.cells.erase(cell);
  }
  // Head of the line first, and nobody past it.
  void grant(Shared& s) {
    bool any = false;
    while (!s.queue.empty() && fits(s, s.queue.front().request) && held(s.queue.front().request).empty()) {
      std::uint32_t slot = 0;
      for (auto cell = s.cells.begin(); cell != s.cells.end() && cell->first == slot; ++cell) {
        ++slot;
      }
      take(s, slot, s.queue.front().request);
      s.granted.emplace(s.queue.front().id, slot);
      s.queue.pop_front();
      any = true;
    }
    if (any) {
      changed.notify_all();
    }
  }
};

Ticket::Ticket(Ticket&& other) noexcept : state_(std::exchange(other.state_, nullptr)), slot_(other.slot_) {}

Ticket& Ticket::operator=(Ticket&& other) noexcept {
  if (this != &other) {
    quarantine();
    state_ = std::exchange(other.state_, nullptr);
    slot_ = other.slot_;
  }
  return *this;
}

Ticket::~Ticket() { quarantine(); }

void Ticket::release() noexcept {
  if (CapacityState* state = std::exchange(state_, nullptr); state != nullptr) {
    auto shared = state->shared.lock();
    CapacityState::give_back(*shared, slot_);
    state->grant(*shared);
  }
}

void Ticket::quarantine() noexcept {
  if (CapacityState* state = std::exchange(state_, nullptr); state != nullptr) {
    state->shared.lock()->cells.at(slot_).quarantined = true;
  }
}

Place::Place(Place&& other) noexcept
    : state_(std::exchange(other.state_, nullptr)), id_(other.id_), held_(std::move(other.held_)) {}

Place& Place::operator=(Place&& other) noexcept {
  if (this != &other) {
    leave();
    state_ = std::exchange(other.state_, nullptr);
    id_ = other.id_;
    held_ = std::move(other.held_);
  }
  return *this;
}

Place::~Place() { leave(); }

void Place::leave() noexcept {
  CapacityState* state = std::exchange(state_, nullptr);
  if (state == nullptr) {
    return;
  }
  auto shared = state->shared.lock();
  if (const auto granted = shared->granted.find(id_); granted != shared->granted.end()) {
    CapacityState::give_back(*shared, granted->second);  // no cell ever used it
    shared->granted.erase(granted);
  } else {
    std::erase_if(shared->queue, [this](const CapacityState::Waiting& w) { return w.id == id_; });
  }
  state->grant(*shared);
}

base::Result<Ticket, Reason> Place::wait(base::Deadline deadline, const std::atomic<bool>& cancelled) {
  CR_ASSERT(state_ != nullptr);
  Reason why = Reason::kStartDeadlineExceeded;
  {
    auto shared = state_->shared.lock();
    while (true) {
      if (cancelled.load()) {
        why = Reason::kCancelledByUser;
        break;
      }
      if (const auto granted = shared->granted.find(id_); granted != shared->granted.end()) {
        Ticket ticket(std::exchange(state_, nullptr), granted->second);
        shared->granted.erase(granted);
        return ticket;
      }
      // Nothing tells when a hold ends, so the first in line looks again.
      const bool first = !shared->queue.empty() && shared->queue.front().id == id_ && state_->fits(*shared, shared->queue.front().request);
      held_ = first ? state_->held(shared->queue.front().request) : std::string();
      if (deadline.expired()) {
        break;
      }
      shared.wait(state_->changed, first ? base::Deadline::after(std::min(deadline.remaining(), kHoldInterval)) : deadline);
      state_->grant(*shared);
    }
  }
  leave();
  return why;
}

CapacityPool::CapacityPool(const CapacityLimits& limits, HoldCheck hold)
    : state_(std::make_unique<CapacityState>(limits, std::move(hold))) {
  CR_ASSERT(limits.cells <= kMaxSlot + 1);
}

CapacityPool::~CapacityPool() = default;

base::Result<Place, Refusal> CapacityPool::enter(const CapacityRequest& request) {
  const CapacityLimits& limits = state_->limits;
  if (limits.cells == 0 || request.cpu_millis > limits.cpu_millis || request.memory_bytes > limits.memory_bytes) {
    return Refusal{Reason::kNoCapacity, "the job, with its lane's overhead, is larger than this node",
                   "ask for less, or submit to a larger node: `cellrun capacity`", "spec.resources.limits"};
  }
  auto shared = state_->shared.lock();
  const bool full = !shared->queue.empty() || !state_->fits(*shared, request);
  const std::string held = full ? std::string() : state_->held(request);
  if ((full || !held.empty()) && shared->queue.size() >= state_->limits.queue) {
    const std::string why = held.empty() ? "the node is full" : held;
    return Refusal{Reason::kNoCapacity, why + ", and " + std::to_string(shared->queue.size()) + " jobs wait already",
                   "submit again later", {}};
  }
  const std::uint64_t id = shared->next_id++;
  shared->queue.push_back({id, request});
  state_->grant(*shared);
  return Place(state_.get(), id);
}

base::Result<Ticket> CapacityPool::adopt(std::uint32_t slot, const CapacityRequest& request) {
  if (slot > kMaxSlot) {
    return Error(Errc::kInvalidArgument, "adopt cell: slot " + std::to_string(slot) + ": out of range");
  }
  auto shared = state_->shared.lock();
  if (shared->cells.contains(slot)) {
    return Error(Errc::kAlreadyExists, "adopt cell: slot " + std::to_string(slot) + ": taken");
  }
  CapacityState::take(*shared, slot, request);
  return Ticket(state_.get(), slot);
}

void CapacityPool::wake() {
  // Under the lock: a waiter is either before its look at `cancelled` or already in the wait.
  const auto shared = state_->shared.lock();
  state_->changed.notify_all();
}

CapacityUse CapacityPool::use() const {
  auto shared = state_->shared.lock();
  CapacityUse out{.total = state_->limits, .cpu_millis = shared->cpu_millis, .memory_bytes = shared->memory_bytes};
  out.cells = static_cast<std::uint32_t>(shared->cells.size());
  for (const auto& [slot, cell] : shared->cells) {
    out.quarantined += cell.quarantined ? 1U : 0U;
  }
  out.queued = static_cast<std::uint32_t>(shared->queue.size());
  if (!shared->queue.empty() && state_->fits(*shared, shared->queue.front().request)) {
    out.held = state_->held(shared->queue.front().request);
  }
  return out;
}

}  // namespace cellrund::admit
