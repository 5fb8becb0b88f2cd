// The FIFOs of one process, tied to its streams in the guest's session. Lives on the loop's thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "shim/loop.hpp"
#include "shim/machine.hpp"
#include "shim/stdio.hpp"

namespace cellrund::shim {

// As in containerd's requests: FIFOs; empty: none.
struct StdioPaths {
  std::string in, out, err;
  bool terminal = false;  // everything comes out of `out`, and a client may leave and another attach
};

class ProcessStdio {
 public:
  // `machine` outlives this, and is there whenever bytes flow.
  static base::Result<std::unique_ptr<ProcessStdio>> open(Loop& loop, const StdioPaths& paths,
                                                          const std::unique_ptr<Machine>& machine,
                                                          const OpenFifo& opener = open_fifo);

  // The process with this number in the session takes input from now on.
  void start(std::uint32_t number);
  void push(wire::Stream stream, base::BytesView bytes);
  void stdin_room() { in_->resume(); }
  void close_stdin() { in_->close_after_drain(); }
  // A line of our own, for whoever reads the process's errors.
  void say(std::string_view line);
  // Nothing more will come.
  void finish();
  // After finish(): the readers have all that there was.
  [[nodiscard]] bool flushed() const noexcept { return out_->closed() && err_->closed(); }

 private:
  ProcessStdio(const std::unique_ptr<Machine>& machine, bool terminal) : machine_(machine), terminal_(terminal) {}

  const std::unique_ptr<Machine>& machine_;
  bool terminal_;
  std::uint32_t number_ = 0;
  std::unique_ptr<OutputFifo> out_, err_;
  std::unique_ptr<InputFifo> in_;
};

}  // namespace cellrund::shim
