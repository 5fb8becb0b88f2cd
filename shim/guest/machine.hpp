// cell-init as PID 1 of a guest kernel: from the initramfs to the control port, and the power switch.
#pragma once

#include "shim/guest/platform.hpp"

namespace cellrund::guest {

class Machine final : public Platform {
 public:
  base::Result<base::UniqueFd> open_channel() override;
  base::Status add_entropy(base::BytesView seed) override;
  base::Status set_clock(std::int64_t realtime_ns) override;
  base::Status prepare(const wire::Workload& workload) override;
  [[nodiscard]] int cgroup_fd() const noexcept override { return cgroup_.get(); }
  base::Result<base::UniqueFd> open_outputs() override;
  [[nodiscard]] bool end_of_stream_is_final() const noexcept override { return false; }
  [[nodiscard]] bool keeps_deadline() const noexcept override { return false; }
  void describe_end(wire::Exit& exit) override;
  void complain(std::string_view line) noexcept override;
  [[noreturn]] void leave(int status) noexcept override;

 private:
  base::UniqueFd cgroup_;
};

}  // namespace cellrund::guest
