// The guest that the stand-in VMM has instead of a machine: it speaks cell-init's end of the control channel
// (shim/wire/frame.hpp) and answers each step at once. It runs nothing; as /bin/echo would, it writes the workload's
// arguments behind the first, so that the workload must have come through. No I/O of its own.
#pragma once

#include "base/result.hpp"
#include "shim/wire/frame.hpp"
#include "shim/wire/messages.hpp"

namespace cellrund::bench {

class StandInGuest {
 public:
  explicit StandInGuest(const wire::Nonce& nonce) : nonce_(nonce) {}

  // An error: the host broke the protocol, and there is nothing left to say to it.
  base::Status feed(base::BytesView bytes);
  // What is to be written to the host; the caller takes it all.
  [[nodiscard]] base::Bytes take_output();

 private:
  base::Status on_frame(const wire::FrameView& frame);

  wire::Nonce nonce_;
  wire::FrameParser parser_;
  base::Bytes workload_;
  base::Bytes output_;
};

}  // namespace cellrund::bench
