// cell-init as a process of the host's kernel, started by the daemon as PID 1 of a pid namespace with the control
// socket as descriptor 3. It keeps the deadline, so that it holds with the daemon dead.
#pragma once

#include "shim/guest/platform.hpp"

namespace cellrund::guest {

inline constexpr int kControlFd = 3;

class ProcessLane final : public Platform {
 public:
  // kFailedPrecondition unless this process is PID 1 of a pid namespace: then killing it kills all that it starts.
  base::Result<base::UniqueFd> open_channel() override;
  base::Status add_entropy(base::BytesView seed) override;
  base::Status set_clock(std::int64_t realtime_ns) override;
  base::Status prepare(const wire::Workload& workload) override;
  [[nodiscard]] int cgroup_fd() const noexcept override { return -1; }
  base::Result<base::UniqueFd> open_outputs() override;
  [[nodiscard]] bool end_of_stream_is_final() const noexcept override { return true; }
  [[nodiscard]] bool keeps_deadline() const noexcept override { return true; }
  // The daemon reads the host's cgroup itself.
  void describe_end(wire::Exit&) override {}
  void complain(std::string_view line) noexcept override;
  [[noreturn]] void leave(int status) noexcept override;

 private:
  base::UniqueFd outputs_;
};

}  // namespace cellrund::guest
