// When what a closed job left behind (logs, outputs) goes: ttlSecondsAfterFinished after its end. Its record stays. Survives a
// restart by the end in the ledger and the ttl in the job's folder. Thread-safe.
#pragma once

#include <chrono>
#include <map>
#include <string>

#include "base/clock.hpp"
#include "base/guarded.hpp"
#include "base/result.hpp"
#include "ledger/ledger.hpp"

namespace cellrund::cell {

class Expiry {
 public:
  explicit Expiry(std::string state_dir) : state_dir_(std::move(state_dir)) {}

  // What earlier runs left; jobs that are not closed are left to closed().
  void load(ledger::Ledger& ledger);
  // For load() of a later run. Nothing is written for the default.
  base::Status keep_ttl(const std::string& uid, std::chrono::seconds ttl) const;
  void closed(const std::string& uid, base::WallTime end, std::chrono::seconds ttl);

  // How long until remove_due() has something to do; an hour at most.
  [[nodiscard]] base::Nanoseconds until_next(base::WallTime now);
  // Removes what is due. What cannot be removed is logged and tried again after a restart.
  void remove_due(base::WallTime now);

 private:
  std::string state_dir_;
  base::Guarded<std::multimap<std::int64_t, std::string>> due_;  // wall seconds → uid
};

}  // namespace cellrund::cell
