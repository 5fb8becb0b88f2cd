// Execs: the processes that joined the workload, from the host's EXEC(WORKLOAD) to our EXEC(EXIT). Each ends by itself, or
// with the workload, which takes them all along.
#pragma once

#include <map>
#include <vector>

#include "shim/guest/cell.hpp"
#include "shim/guest/process_io.hpp"

namespace cellrund::guest {

class Execs {
 public:
  // `channel` outlives this.
  explicit Execs(Channel& channel) noexcept : channel_(channel) {}

  // `cell`: the running workload. An error: the host broke the protocol.
  base::Status on_frame(base::BytesView payload, Cell& cell);
  void on_started(Cell::ExecReport& report);
  void on_ended(Cell::ExecReport& report);
  // The workload has ended: nobody is left to report, and the host knows.
  void drop() noexcept { execs_.clear(); }

  void add_polls(std::vector<pollfd>& polls) const;
  // `polls`: what add_polls() has added. Before anything else changes what it would add.
  void handle(const pollfd* polls);
  // Goes on with what has ended. After everything else.
  void settle();
  // When settle() has something to do without a descriptor.
  [[nodiscard]] std::optional<base::Deadline> deadline() const;

 private:
  struct Exec {
    ProcessIo io;
    std::optional<wire::Exit> exit;  // it is dead, and its output is on its way
  };
  base::Status start(std::uint32_t number, base::BytesView payload, Cell& cell);

  Channel& channel_;
  std::map<std::uint32_t, Exec> execs_;
};

}  // namespace cellrund::guest
