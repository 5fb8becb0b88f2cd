// Agent: the guest's end of one cell, from HELLO to SHUTDOWN. One thread, one poll loop; everything it waits for is a
// descriptor or a deadline. Wire order: shim/wire/host_session.hpp.
#pragma once

#include <optional>

#include "base/clock.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"
#include "shim/guest/cell.hpp"
#include "shim/guest/channel.hpp"
#include "shim/guest/execs.hpp"
#include "shim/guest/platform.hpp"
#include "shim/guest/process_io.hpp"
#include "shim/guest/secret_files.hpp"
#include "shim/wire/messages.hpp"
#include "shim/wire/workload.hpp"

namespace cellrund::guest {

class Agent {
 public:
  // `platform` outlives the agent. `channel_fd` is non-blocking.
  Agent(Platform& platform, base::UniqueFd channel_fd) : platform_(platform), channel_(std::move(channel_fd)) {}
  Agent(const Agent&) = delete;
  Agent& operator=(const Agent&) = delete;
  Agent(Agent&&) = delete;
  Agent& operator=(Agent&&) = delete;
  ~Agent() = default;

  // Returns when the cell is over and said so as well as the channel allows. An error: the host broke the protocol, or
  // this program could not go on; nothing of the workload is left in either case once the caller has left the platform.
  base::Status run();

 private:
  enum class Phase { kHello, kWorkload, kPreparing, kReady, kStarting, kRunning, kDraining, kHandingOver, kFlushing, kDone };

  // One turn: waits for the next thing to happen, then handles all that did.
  base::Status turn();
  [[nodiscard]] std::optional<base::Deadline> phase_deadline() const;
  base::Status on_channel(short revents);
  base::Status on_frame(const wire::FrameView& frame);
  base::Status on_hello(base::BytesView payload);
  base::Status on_workload_piece(base::BytesView payload);
  base::Status on_start(base::BytesView payload);
  base::Status on_secret(base::BytesView payload);
  base::Status on_revoke(base::BytesView payload);
  base::Status on_cell();
  base::Status on_timer();
  void on_host_gone();
  void begin_drain();
  // From the last of stdout and stderr to the last of /outputs, then EXIT.
  void begin_outputs();
  base::Status on_outputs_sent();
  base::Status on_late_outputs(base::BootTime now);
  void end_with(wire::Exit exit);

  Platform& platform_;
  Channel channel_;
  Phase phase_ = Phase::kHello;
  wire::Nonce nonce_{};
  base::Bytes encoded_workload_;
  wire::Workload workload_;
  std::optional<Cell> cell_;
  std::optional<SecretFiles> secrets_;
  wire::Exit exit_;
  ProcessIo io_{channel_, 0};
  Execs execs_{channel_};
  bool host_gone_ = false;
  base::UniqueFd sender_;  // pidfd of the process that hands over /outputs
  base::UniqueFd timer_;  // the deadline, then its grace
  std::int64_t stop_sent_boot_ns_ = 0;
  std::int64_t kill_sent_boot_ns_ = 0;
  std::optional<base::Deadline> phase_ends_;
  std::optional<base::Deadline> quiet_until_;  // an empty virtio port reports hang-up all the time: ask again then
};

}  // namespace cellrund::guest
