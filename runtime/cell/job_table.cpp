#include "cell/job_table.hpp"

#include <sys/eventfd.h>
#include <unistd.h>

namespace cellrund::cell {

base::Result<std::shared_ptr<CancelFlag>> CancelFlag::create() {
  base::UniqueFd event(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!event) {
    return base::Error::from_errno("eventfd");
  }
  return std::shared_ptr<CancelFlag>(new CancelFlag(std::move(event)));
}

void CancelFlag::raise(CancelCause cause) {
  CancelCause expected = CancelCause::kNone;
  if (!cause_.compare_exchange_strong(expected, cause)) {
    return;
  }
  raised_.store(true);
  const std::uint64_t one = 1;
  (void)!::write(event_.get(), &one, sizeof one);  // an eventfd below its maximum always takes it
  (void)stop_.request_stop();                      // false only when it was requested before
}

model::Reason reason_of(CancelCause cause) noexcept {
  switch (cause) {
    case CancelCause::kUser: return model::Reason::kCancelledByUser;
    case CancelCause::kOperator: return model::Reason::kKilledByOperator;
    case CancelCause::kShutdown: return model::Reason::kNodeShutdown;
    case CancelCause::kKillSwitch: return model::Reason::kKillSwitch;
    case CancelCause::kEgressQuota: return model::Reason::kEgressQuotaExceeded;
    case CancelCause::kEgressUnproven: return model::Reason::kEgressUnproven;
    case CancelCause::kLogLimit: return model::Reason::kLogLimitExceeded;
    case CancelCause::kNone: break;
  }
  return model::Reason::kNone;
}

CancelCause CancelFlag::cause() const { return cause_.load(); }

void JobTable::insert(JobView view, std::shared_ptr<CancelFlag> cancel) {
  auto state = state_.lock();
  const std::string uid = view.uid;
  state->order.push_back(uid);
  state->jobs[uid] = Entry{std::move(view), 0, std::move(cancel)};
  while (state->order.size() > kKeep && state->jobs[state->order.front()].view.closed) {
    state->jobs.erase(state->order.front());
    state->order.pop_front();
  }
}

std::optional<JobView> JobTable::get(const std::string& uid) {
  auto state = state_.lock();
  const auto it = state->jobs.find(uid);
  return it == state->jobs.end() ? std::nullopt : std::optional(it->second.view);
}

std::vector<JobView> JobTable::list(std::size_t limit) {
  auto state = state_.lock();
  std::vector<JobView> out;
  for (auto it = state->order.rbegin(); it != state->order.rend() && out.size() < limit; ++it) {
    out.push_back(state->jobs.at(*it).view);
  }
  return out;
}

std::shared_ptr<CancelFlag> JobTable::cancel_flag(const std::string& uid) {
  auto state = state_.lock();
  const auto it = state->jobs.find(uid);
  return it == state->jobs.end() ? nullptr : it->second.cancel;
}

void JobTable::update(const std::string& uid, const std::function<void(JobView&)>& change) {
  {
    auto state = state_.lock();
    const auto it = state->jobs.find(uid);
    CR_ASSERT(it != state->jobs.end());
    change(it->second.view);
    ++it->second.view.version;
    if (it->second.view.closed) {
      it->second.cancel.reset();  // nothing is left to cancel, and the flag holds a descriptor
    }
  }
  changed_.notify_all();
}

void JobTable::set_log_bytes(const std::string& uid, std::uint64_t bytes) {
  {
    auto state = state_.lock();
    if (const auto it = state->jobs.find(uid); it != state->jobs.end()) {
      it->second.log_bytes = bytes;
    }
  }
  changed_.notify_all();
}

std::uint64_t JobTable::log_bytes(const std::string& uid) {
  auto state = state_.lock();
  const auto it = state->jobs.find(uid);
  return it == state->jobs.end() ? 0 : it->second.log_bytes;
}

void JobTable::wait_change(const std::string& uid, std::uint64_t seen_version, std::uint64_t seen_log_bytes,
                           base::Deadline deadline) {
  auto state = state_.lock();
  while (!deadline.expired()) {
    const auto it = state->jobs.find(uid);
    if (it == state->jobs.end() || it->second.view.version > seen_version || it->second.log_bytes > seen_log_bytes ||
        it->second.view.closed) {
      return;
    }
    state.wait(changed_, deadline);
  }
}

}  // namespace cellrund::cell
