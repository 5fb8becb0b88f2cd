// The little of QMP that the shim speaks (qemu docs/interop/qmp-spec.txt): greeting, qmp_capabilities, cont, stop,
// set-action. A state machine without I/O. What QEMU writes is not trusted: lines are bounded and parsed strictly.
#pragma once

#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "base/file.hpp"
#include "base/json.hpp"
#include "base/result.hpp"

namespace cellrund::shim {

class Qmp {
 public:
  enum class Step {
    kNothing,
    kGreeted,   // version() is known; the machine stands still
    kReady,     // capabilities negotiated: cont() may be called
    kRunning,   // cont was answered
    kRestarted, // the guest reset itself and boots again
    kCommitted, // end_on_reset() was answered: from now on a reset ends QEMU
    kPaused,    // stop() was answered: no instruction of the guest runs
    kResumed,   // resume() was answered
  };

  // Consumes bytes from QEMU. An error ends the session: the machine cannot be trusted to be what it should be.
  base::Result<std::vector<Step>> feed(base::BytesView bytes);
  // Bytes to send; the caller takes them all.
  [[nodiscard]] std::string take_output();
  // After kReady.
  void cont();
  void end_on_reset();
  void stop();
  void resume();
  [[nodiscard]] const std::string& version() const noexcept { return version_; }

 private:
  base::Result<Step> line(std::string_view text);
  void execute(std::string_view command, Step answered);

  std::string in_;
  std::string out_;
  std::string version_;
  bool greeted_ = false;
  std::deque<Step> expected_;  // what the answers to come will mean, in the order of the commands
};

}  // namespace cellrund::shim
