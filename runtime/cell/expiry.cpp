#include "cell/expiry.hpp"

#include <algorithm>
#include <set>
#include <vector>

#include "base/file.hpp"
#include "base/log.hpp"
#include "cell/log_store.hpp"
#include "cell/output_store.hpp"

namespace cellrund::cell {
namespace {

constexpr std::size_t kMaxJobs = 1U << 20U;
constexpr std::chrono::hours kLongestWait{1};

}  // namespace

void Expiry::load(ledger::Ledger& ledger) {
  std::set<std::string> uids;
  for (const char* folder : {"/logs", "/jobs"}) {
    if (auto names = base::list_dir(state_dir_ + folder, kMaxJobs); names.ok()) {
      uids.insert(names->begin(), names->end());
    } else if (names.error().code() != base::Errc::kNotFound) {
      base::log::warn("step=expiry error=" + base::log::quoted(names.error().message()) + ", ignoring: nothing of it expires before a restart");
    }
  }
  for (const std::string& uid : uids) {
    const auto row = ledger.get(uid);
    if (row.ok() && row->has_value() && (*row)->closed && !(*row)->timeline.empty()) {
      closed(uid, (*row)->timeline.back().wall, read_ttl(job_folder(state_dir_, uid)));
    }
  }
}

base::Status Expiry::keep_ttl(const std::string& uid, std::chrono::seconds ttl) const {
  return ttl == model::JobSpec{}.ttl_after_finished ? base::ok() : write_ttl(job_folder(state_dir_, uid), ttl);
}

void Expiry::closed(const std::string& uid, base::WallTime end, std::chrono::seconds ttl) {
  due_.lock()->emplace(end.seconds + ttl.count(), uid);
}

base::Nanoseconds Expiry::until_next(base::WallTime now) {
  auto due = due_.lock();
  // Wall clocks step: whatever is said here, it is looked at again within the hour.
  const std::int64_t seconds = due->empty() ? std::chrono::seconds(kLongestWait).count() : due->begin()->first - now.seconds;
  return std::chrono::seconds(std::clamp<std::int64_t>(seconds, 0, std::chrono::seconds(kLongestWait).count()));
}

void Expiry::remove_due(base::WallTime now) {
  std::vector<std::string> uids;
  {
    auto due = due_.lock();
    const auto end = due->upper_bound(now.seconds);
    for (auto it = due->begin(); it != end; ++it) {
      uids.push_back(it->second);
    }
    due->erase(due->begin(), end);
  }
  for (const std::string& uid : uids) {
    auto removed = remove_logs(log_folder(state_dir_, uid));
    if (removed.ok()) {
      removed = remove_job_folder(job_folder(state_dir_, uid));
    }
    base::log::info("cell=" + uid + " step=expire outcome=" + (removed.ok() ? "removed" : base::log::quoted(removed.error().message())));
  }
}

}  // namespace cellrund::cell
