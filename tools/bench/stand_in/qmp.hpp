// The stand-in's end of QMP (qemu docs/interop/qmp-spec.txt): a greeting that says what it is, and success for every
// command. No I/O of its own.
#pragma once

#include <string>
#include <string_view>

namespace cellrund::bench {

class StandInQmp {
 public:
  StandInQmp();

  void feed(std::string_view bytes);
  [[nodiscard]] std::string take_output();
  // The machine was let go: its guest may speak now.
  [[nodiscard]] bool running() const noexcept { return running_; }

 private:
  std::string in_;
  std::string out_;
  bool running_ = false;
};

}  // namespace cellrund::bench
