// ProcessIo: the streams of one process between its pipes, or its terminal, and the channel, within the credit that each
// side has. The same for the workload's first process (number 0) and for one that joined.
#pragma once

#include <poll.h>

#include <array>
#include <optional>

#include "base/clock.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"
#include "shim/guest/cell.hpp"
#include "shim/guest/channel.hpp"
#include "shim/wire/messages.hpp"

namespace cellrund::guest {

class ProcessIo {
 public:
  // `channel` outlives this.
  ProcessIo(Channel& channel, std::uint32_t number) noexcept : channel_(channel), number_(number) {}

  // What comes before is kept.
  void open(StdioPipes pipes);
  // STARTED was sent: from now on the host takes output and credit.
  void start();
  // The process is dead: what lies in the pipes goes out as long as the host takes it, but never longer than a few seconds
  // without progress.
  void begin_drain();
  // Sends what it can now. True: nothing is left, or no patience.
  bool drain(bool host_gone);
  [[nodiscard]] bool truncated() const noexcept;
  void close() noexcept;

  // Frames of the host.
  base::Status on_stdin(base::BytesView payload);
  void on_stdin_close();
  base::Status on_credit(base::BytesView payload);
  base::Status on_resize(base::BytesView payload);

  // A frame of this process, bare or inside EXEC.
  void send(wire::FrameType type, base::BytesView payload);

  using Polls = std::array<pollfd, 3>;
  // `host_gone`: read and drop.
  [[nodiscard]] Polls polls(bool host_gone) const noexcept;
  // Before anything else changes what polls() would say.
  void handle(const pollfd* polls, bool host_gone);
  [[nodiscard]] const std::optional<base::Deadline>& drain_ends() const noexcept { return drain_ends_; }

 private:
  struct Output {
    base::UniqueFd pipe;
    std::uint32_t credit = wire::kOutputWindow;
  };
  [[nodiscard]] bool can_pump(const Output& output, bool host_gone) const noexcept;
  void pump_stdin();
  // Reads once. False: nothing there now.
  bool pump(Output& output, wire::FrameType type, bool host_gone);

  Channel& channel_;
  std::uint32_t number_;
  bool opened_ = false;
  bool started_ = false;
  std::optional<base::Deadline> drain_ends_;
  Output stdout_, stderr_;
  base::UniqueFd stdin_pipe_;
  std::optional<wire::WindowSize> early_size_;  // of a terminal that is not there yet
  base::Bytes stdin_;
  std::uint32_t stdin_owed_ = 0;  // disposed of, not yet announced
  bool stdin_closing_ = false;
};

}  // namespace cellrund::guest
