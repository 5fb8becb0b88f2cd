// One running VMM with its guest: launched paused, checked, let go, then spoken to through the control port. Owns the
// process; destroying a Machine kills and reaps it. Lives on the loop's thread.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>

#include "base/clock.hpp"
#include "base/process.hpp"
#include "base/result.hpp"
#include "shim/children.hpp"
#include "shim/guest_images.hpp"
#include "shim/launch.hpp"
#include "shim/loop.hpp"
#include "shim/qmp.hpp"
#include "shim/vmm_check.hpp"
#include "shim/wire/host_session.hpp"

namespace cellrund::shim {

struct MachinePlan {
  std::string name;
  Accel accel = Accel::kTcg;  // not kAuto
  unsigned vcpus = 1;
  std::uint64_t memory_bytes = 0;
  std::uint64_t tsc_khz = 0;
  std::uint32_t uid = 0;
  const GuestImages* images = nullptr;  // borrowed for launch() only
  int rootfs_fd = -1;
  int inputs_fd = -1;                   // an EROFS image; -1: an empty disk takes its place
  std::string scratch_dir;              // where the nameless scratch file lives
  std::uint64_t scratch_bytes = 0;      // what the guest may really write
  int netns_fd = -1;
  int tap_fd = -1;
  int outputs_fd = -1;                  // a connected socket; -1: what the guest writes to that port is dropped
  std::array<std::uint8_t, 6> mac{};
  BeforeExec before_exec;
};

class Machine {
 public:
  // Never called from within launch() or the destructor. `died` is the last call.
  struct Callbacks {
    // The VMM was checked and runs, or it was not as promised.
    std::function<void(base::Result<VmmStatus>)> checked;
    std::function<void(wire::Event&)> event;
    // The guest reset itself and boots again; only before commit().
    std::function<void()> restarted;
    // commit() holds; or QMP went wrong, before it or after.
    std::function<void(base::Status)> committed;
    // pause() or resume() holds.
    std::function<void(bool paused)> paused;
    std::function<void(base::ExitStatus)> died;
  };

  static base::Result<std::unique_ptr<Machine>> launch(Loop& loop, Children& children, const MachinePlan& plan,
                                                       Callbacks callbacks);
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;
  Machine(Machine&&) = delete;
  Machine& operator=(Machine&&) = delete;
  ~Machine();

  [[nodiscard]] const base::ProcessId& id() const noexcept { return process_.id(); }
  [[nodiscard]] int pidfd() const noexcept { return process_.fd(); }
  [[nodiscard]] const std::string& qemu_version() const noexcept { return qmp_.version(); }
  // The end of what the VMM wrote to its standard error.
  [[nodiscard]] const std::string& last_words() const noexcept { return errors_; }

  // To change the session's state; what it then has to say is sent when the call returns.
  template <typename Call>
  auto with_session(Call call) {
    if constexpr (std::is_void_v<std::invoke_result_t<Call, wire::HostSession&>>) {
      call(session_);
      flush_agent();
    } else {
      auto result = call(session_);
      flush_agent();
      return result;
    }
  }
  // From then on a reset of the guest is the end of the machine; committed() follows. After checked(), once.
  void commit();
  // No instruction of the guest runs from paused(true) to paused(false). After committed().
  void pause();
  void resume();
  // SIGKILL; died() follows.
  void kill();
  // From now on by another process, because this one no longer may.
  void killed_by(std::function<void()> killer) { killer_ = std::move(killer); }

 private:
  Machine(Loop& loop, Children& children, Callbacks callbacks, wire::HostSession session)
      : loop_(loop), children_(children), callbacks_(std::move(callbacks)), session_(std::move(session)) {}

  void on_qmp();
  base::Status flush_qmp();
  void flush_qmp_or_refuse();
  void refuse(base::Error error);
  void on_agent(std::uint32_t events);
  // Reads once; false at the end of the channel, or when there is nothing to read.
  bool read_agent();
  void flush_agent();
  void on_errors();
  void on_exit(base::ExitStatus exit);
  void close_all() noexcept;

  Loop& loop_;
  Children& children_;
  Callbacks callbacks_;
  VmmIdentity expected_;
  base::PidFd process_;
  base::UniqueFd qmp_fd_, agent_fd_, error_fd_;
  Qmp qmp_;
  wire::HostSession session_;
  std::string errors_;
  std::function<void()> killer_;
  bool checked_ = false;
  bool reaped_ = false;
};

}  // namespace cellrund::shim
