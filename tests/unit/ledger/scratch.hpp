// A temporary folder for one ledger, and rows to put into it.
#pragma once

#include <stdlib.h>

#include <string>

#include "base/file.hpp"
#include "ledger/ledger.hpp"

namespace ledger_test {

inline const std::string kUid = "0199c1f2-7b1e-7c3a-9d2e-2f4b6a8c0e11";

class Scratch {
 public:
  Scratch() {
    std::string pattern = "/tmp/cellrun-ledger-XXXXXX";
    CR_ASSERT(::mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  ~Scratch() {
    if (const auto names = cellrund::base::list_dir(path_, 100); names.ok()) {
      for (const std::string& name : *names) {
        (void)cellrund::base::remove_file(path_ + "/" + name);
      }
    }
    (void)cellrund::base::remove_dir(path_);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  Scratch(Scratch&&) = delete;
  Scratch& operator=(Scratch&&) = delete;
  [[nodiscard]] std::string file(const std::string& name = "ledger.db") const { return path_ + "/" + name; }

 private:
  std::string path_;
};

inline cellrund::ledger::NewJob job() {
  cellrund::ledger::NewJob job;
  job.uid = kUid;
  job.spec_digest = "sha256:spec";
  job.name = "fix-tests";
  job.tenant = "research";
  job.signer_key_id = "k";
  job.peer = {1000, 1001, 4321};
  job.envelope = std::string("{\"a\":\0}", 7);  // any bytes survive
  return job;
}

inline cellrund::model::TimelineEntry entry(cellrund::model::State state, std::string cause = "") {
  return {state, {1700000000, 5}, {42}, std::move(cause)};
}

inline cellrund::ledger::Sealed sealed(cellrund::model::Verdict verdict) {
  cellrund::ledger::Sealed sealed;
  sealed.final = entry(cellrund::model::State::kFailed, "exit 7");
  sealed.outcome = {cellrund::model::State::kFailed, cellrund::model::Reason::kError, 7, std::nullopt, ""};
  sealed.verdict = verdict;
  sealed.envelope = "{}";
  sealed.digest = "sha256:e";
  return sealed;
}

}  // namespace ledger_test
