// The shim's end of its broker (broker_process.hpp): what it asks for once it is confined. Lives on the loop's thread.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "base/clock.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"
#include "shim/broker_process.hpp"
#include "shim/loop.hpp"
#include "shim/task_events.hpp"

namespace cellrund::shim {

class Broker {
 public:
  // `gone`: it has ended, or does not answer; it is not asked again.
  Broker(Loop& loop, std::function<void()> gone) : loop_(loop), gone_(std::move(gone)) {}
  Broker(const Broker&) = delete;
  Broker& operator=(const Broker&) = delete;
  Broker(Broker&&) = delete;
  Broker& operator=(Broker&&) = delete;
  ~Broker();

  // Once, before the shim confines itself.
  base::Status start(const BrokerDuties& duties);
  [[nodiscard]] bool running() const noexcept { return socket_.valid(); }

  void kill();
  void publish(const TaskEvent& event);
  base::Result<base::UniqueFd> open_fifo(const std::string& path, int flags);
  base::Status started(base::BootTime when, const std::string& guest_kernel_release);
  base::Status ended(const std::string& report);
  base::Status remove_group();
  // It ends when containerd has every event, or after a few seconds; gone() follows.
  void leave();

 private:
  base::Status send(const Request& request, std::string_view text = {});
  base::Result<base::UniqueFd> ask(const Request& request, std::string_view text = {});
  void on_readable();
  void lost();

  Loop& loop_;
  std::function<void()> gone_;
  base::UniqueFd socket_;
};

// The next answer, with the descriptor that came along if one did. Waits for at most 10 s. kDataLoss: the broker is gone;
// kDeadlineExceeded: it does not answer; anything else: its own failure.
base::Result<base::UniqueFd> receive_answer(int socket);

}  // namespace cellrund::shim
