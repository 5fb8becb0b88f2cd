// What differs between the two places where cell-init runs: PID 1 of a guest kernel (machine.cpp), or a process of the
// host kernel in namespaces of its own (process_lane.cpp).
#pragma once

#include "base/file.hpp"
#include "base/result.hpp"
#include "shim/guest/channel.hpp"
#include "shim/wire/messages.hpp"
#include "shim/wire/workload.hpp"

namespace cellrund::guest {

class Platform {
 public:
  Platform() = default;
  Platform(const Platform&) = delete;
  Platform& operator=(const Platform&) = delete;
  Platform(Platform&&) = delete;
  Platform& operator=(Platform&&) = delete;
  virtual ~Platform() = default;

  // Once, before anything else: makes the place fit to run in and opens the control channel.
  virtual base::Result<base::UniqueFd> open_channel() = 0;
  virtual base::Status add_entropy(base::BytesView seed) = 0;
  virtual base::Status set_clock(std::int64_t realtime_ns) = 0;
  // Network and cgroup for this workload. Postcondition: a child cloned now, into cgroup_fd() if that is valid, is where
  // the workload belongs.
  virtual base::Status prepare(const wire::Workload& workload) = 0;
  [[nodiscard]] virtual int cgroup_fd() const noexcept = 0;
  // Where the archive of /outputs goes: non-blocking, read and write. Once, of a workload that has outputs.
  virtual base::Result<base::UniqueFd> open_outputs() = 0;
  // Whether the end of the channel's stream means that the host is gone for good (a socket), or not (virtio-serial).
  [[nodiscard]] virtual bool end_of_stream_is_final() const noexcept = 0;
  // Whether cell-init holds the deadline. In a guest the host alone does: the guest's clock proves nothing.
  [[nodiscard]] virtual bool keeps_deadline() const noexcept = 0;
  // Fills in what the limits of this place did to the workload.
  virtual void describe_end(wire::Exit& exit) = 0;
  // For people: one line where this place keeps such lines.
  virtual void complain(std::string_view line) noexcept = 0;
  // The end: power off, or leave. Does not return.
  [[noreturn]] virtual void leave(int status) noexcept = 0;
};

}  // namespace cellrund::guest
