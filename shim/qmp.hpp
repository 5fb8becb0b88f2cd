// The little of QMP that the shim speaks (qemu docs/interop/qmp-spec.txt): greeting, qmp_capabilities, cont. A state
// machine without I/O. What QEMU writes is not trusted: lines are bounded and parsed strictly.
#pragma once

#include <functional>
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
  };

  // Consumes bytes from QEMU. An error ends the session: the machine cannot be trusted to be what it should be.
  base::Result<std::vector<Step>> feed(base::BytesView bytes);
  // Bytes to send; the caller takes them all.
  [[nodiscard]] std::string take_output();
  void cont();
  [[nodiscard]] const std::string& version() const noexcept { return version_; }

 private:
  base::Result<Step> line(std::string_view text);

  std::string in_;
  std::string out_;
  std::string version_;
  enum class State { kGreeting, kCapabilities, kIdle, kCont, kRunning } state_ = State::kGreeting;
};

}  // namespace cellrund::shim
