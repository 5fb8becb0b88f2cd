#include "shim/machine.hpp"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>

#include "base/log.hpp"
#include "shim/qemu_args.hpp"

namespace cellrund::shim {
namespace {

using base::Error;
using base::Result;
using base::Status;

// What every cell's guest sees, whatever is behind it (sparse files).
constexpr std::uint64_t kInputsVirtual = 64U << 20U;
constexpr std::uint64_t kScratchVirtual = 16ULL << 30U;
constexpr std::size_t kMaxLastWords = 4096;

Result<base::UniqueFd> empty_inputs() {
  base::UniqueFd fd(::memfd_create("inputs", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd || ::ftruncate(fd.get(), static_cast<off_t>(kInputsVirtual)) != 0 ||
      ::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) != 0) {
    return Error::from_errno("make the inputs disk");
  }
  // The same memory, but a descriptor that QEMU finds to be read-only, as it wants it for a read-only disk.
  return base::open_file("/proc/self/fd/" + std::to_string(fd.get()), O_RDONLY);
}

Result<base::UniqueFd> scratch_disk(const std::string& folder) {
  base::UniqueFd fd = CR_TRY(base::open_file(folder, O_TMPFILE | O_RDWR | O_EXCL, 0600).context("scratch disk"));
  if (::ftruncate(fd.get(), static_cast<off_t>(kScratchVirtual)) != 0) {
    return Error::from_errno("size the scratch disk");
  }
  return fd;
}

}  // namespace

Result<std::unique_ptr<Machine>> Machine::launch(Loop& loop, Children& children, const MachinePlan& plan,
                                                 Callbacks callbacks) {
  CR_ASSERT(plan.uid != 0 && plan.images != nullptr && plan.accel != Accel::kAuto);
  std::unique_ptr<Machine> machine(new Machine(loop, children, std::move(callbacks),
                                               CR_TRY(wire::HostSession::create(wire::HostSession::Mode::kMicrovm))));
  base::SocketPair qmp = CR_TRY(base::make_socket_pair(SOCK_STREAM));
  base::SocketPair agent = CR_TRY(base::make_socket_pair(SOCK_STREAM));
  base::Pipe errors = CR_TRY(base::make_pipe());
  CR_CHECK(base::set_nonblocking(errors.read.get(), true));
  base::UniqueFd no_inputs;
  if (plan.inputs_fd < 0) {
    no_inputs = CR_TRY(empty_inputs());
  }
  const base::UniqueFd scratch = CR_TRY(scratch_disk(plan.scratch_dir));

  LaunchPlan launch;
  launch.argv = qemu_arguments({.qemu_path = plan.images->qemu_path,
                                .name = plan.name,
                                .accel = plan.accel,
                                .vcpus = plan.vcpus,
                                .memory_bytes = plan.memory_bytes,
                                .tsc_khz = plan.tsc_khz,
                                .has_tap = plan.tap_fd >= 0,
                                .has_outputs = plan.outputs_fd >= 0,
                                .mac = plan.mac});
  launch.fds = {{qmp.theirs.get(), kVmmQmp},
                {agent.theirs.get(), kVmmAgent},
                {plan.images->kernel.get(), kVmmKernel},
                {plan.images->initrd.get(), kVmmInitrd},
                {plan.rootfs_fd, kVmmRootfs},
                {plan.inputs_fd < 0 ? no_inputs.get() : plan.inputs_fd, kVmmInputs},
                {scratch.get(), kVmmScratch}};
  if (plan.tap_fd >= 0) {
    launch.fds.emplace_back(plan.tap_fd, kVmmTap);
  }
  if (plan.outputs_fd >= 0) {
    launch.fds.emplace_back(plan.outputs_fd, kVmmOutputs);
  }
  launch.error_fd = errors.write.get();
  launch.netns_fd = plan.netns_fd;
  launch.uid = plan.uid;
  launch.kvm = plan.accel == Accel::kKvm;
  launch.largest_file_bytes = plan.scratch_bytes;
  machine->expected_ = {.uid = plan.uid, .program = plan.images->qemu_id, .network = std::nullopt};
  if (plan.netns_fd >= 0) {
    machine->expected_.network = CR_TRY(base::file_id(plan.netns_fd));
  }
  machine->process_ = CR_TRY(launch_vmm(launch, plan.before_exec));

  Machine* raw = machine.get();
  children.on_exit(raw->id().pid, [raw](base::ExitStatus exit) { raw->on_exit(exit); });
  machine->qmp_fd_ = std::move(qmp.ours);
  machine->agent_fd_ = std::move(agent.ours);
  machine->error_fd_ = std::move(errors.read);
  CR_CHECK(loop.watch(raw->qmp_fd_.get(), EPOLLIN, [raw](std::uint32_t) { raw->on_qmp(); }));
  CR_CHECK(loop.watch(raw->agent_fd_.get(), EPOLLIN, [raw](std::uint32_t events) { raw->on_agent(events); }));
  CR_CHECK(loop.watch(raw->error_fd_.get(), EPOLLIN, [raw](std::uint32_t) { raw->on_errors(); }));
  machine->flush_agent();
  return machine;
}

Machine::~Machine() {
  close_all();
  if (process_.valid() && !reaped_) {
    children_.forget(id().pid);
    kill();
    (void)process_.reap(base::Deadline::after(std::chrono::seconds(5)));
  }
}

void Machine::kill() {
  if (reaped_) {
    return;
  }
  if (killer_) {
    killer_();
  } else {
    (void)process_.signal(SIGKILL);  // our child: it is there until reaped
  }
}

void Machine::close_all() noexcept {
  for (base::UniqueFd* fd : {&qmp_fd_, &agent_fd_, &error_fd_}) {
    if (*fd) {
      loop_.unwatch(fd->get());
      fd->reset();
    }
  }
}

void Machine::on_qmp() {
  std::array<std::uint8_t, 16384> buffer{};
  const ssize_t n = ::recv(qmp_fd_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
    return;
  }
  if (n <= 0) {
    loop_.unwatch(qmp_fd_.get());  // QEMU is ending; its exit follows
    qmp_fd_.reset();
    return;
  }
  const auto steps = qmp_.feed({buffer.data(), static_cast<std::size_t>(n)});
  if (!steps.ok()) {
    refuse(steps.error().clone());
    return;
  }
  for (const Qmp::Step step : *steps) {
    if (step == Qmp::Step::kReady) {
      // The main loop runs, so every option has taken effect, and no instruction of the guest has run yet.
      auto status = check_vmm(id().pid, expected_);
      if (!status.ok()) {
        refuse(std::move(status).error());
        return;
      }
      qmp_.cont();
      if (Status sent = flush_qmp(); !sent.ok()) {
        refuse(std::move(sent).error());
        return;
      }
      checked_ = true;
      callbacks_.checked(std::move(status));
    } else if (step == Qmp::Step::kRestarted) {
      callbacks_.restarted();
    } else if (step == Qmp::Step::kCommitted) {
      callbacks_.committed(base::ok());
    } else if (step == Qmp::Step::kPaused || step == Qmp::Step::kResumed) {
      callbacks_.paused(step == Qmp::Step::kPaused);
    }
  }
  flush_qmp_or_refuse();
}

// QMP went wrong: the step that waits for it fails.
void Machine::refuse(Error error) {
  if (checked_) {
    callbacks_.committed(std::move(error));
  } else {
    callbacks_.checked(std::move(error));
  }
}

Status Machine::flush_qmp() {
  const std::string out = qmp_.take_output();
  if (!out.empty() && (!qmp_fd_ || ::send(qmp_fd_.get(), out.data(), out.size(), MSG_DONTWAIT | MSG_NOSIGNAL) !=
                                       static_cast<ssize_t>(out.size()))) {
    return Error(base::Errc::kUnavailable, "QMP: the VMM does not listen");
  }
  return base::ok();
}

void Machine::flush_qmp_or_refuse() {
  if (Status sent = flush_qmp(); !sent.ok()) {
    refuse(std::move(sent).error());
  }
}

void Machine::commit() {
  qmp_.end_on_reset();
  flush_qmp_or_refuse();
}

void Machine::pause() {
  qmp_.stop();
  flush_qmp_or_refuse();
}

void Machine::resume() {
  qmp_.resume();
  flush_qmp_or_refuse();
}

void Machine::on_agent(std::uint32_t events) {
  if ((events & EPOLLOUT) != 0) {
    flush_agent();
  }
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0 && agent_fd_) {
    (void)read_agent();
  }
}

bool Machine::read_agent() {
  std::array<std::uint8_t, 65536> buffer;  // NOLINT(cppcoreguidelines-pro-type-member-init): filled by recv
  const ssize_t n = ::recv(agent_fd_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
    return false;
  }
  if (n <= 0) {
    loop_.unwatch(agent_fd_.get());  // the VMM is ending; its exit follows
    agent_fd_.reset();
    return false;
  }
  for (wire::Event& event : session_.feed({buffer.data(), static_cast<std::size_t>(n)})) {
    callbacks_.event(event);
  }
  flush_agent();
  return agent_fd_.valid();
}

void Machine::flush_agent() {
  while (agent_fd_ && !session_.output().empty()) {
    const base::BytesView out = session_.output();
    const ssize_t n = ::send(agent_fd_.get(), out.data(), out.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0) {
      if (errno == EINTR) {
        continue;
      }
      if (errno == EAGAIN) {
        (void)loop_.modify(agent_fd_.get(), EPOLLIN | EPOLLOUT);  // watched, so it cannot fail
      }
      return;  // a broken channel shows up as end of file
    }
    session_.consumed(static_cast<std::size_t>(n));
  }
  if (agent_fd_) {
    (void)loop_.modify(agent_fd_.get(), EPOLLIN);
  }
}

void Machine::on_errors() {
  std::array<char, 4096> buffer{};
  const ssize_t n = ::read(error_fd_.get(), buffer.data(), buffer.size());
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
    return;
  }
  if (n <= 0) {
    loop_.unwatch(error_fd_.get());
    error_fd_.reset();
    return;
  }
  errors_.append(buffer.data(), static_cast<std::size_t>(n));
  if (errors_.size() > kMaxLastWords) {
    errors_.erase(0, errors_.size() - kMaxLastWords);
  }
}

void Machine::on_exit(base::ExitStatus exit) {
  reaped_ = true;
  // What the guest said before it ended still counts: its EXIT may lie in the channel.
  while (agent_fd_ && read_agent()) {
  }
  if (error_fd_) {
    on_errors();
  }
  close_all();
  callbacks_.died(exit);
}

}  // namespace cellrund::shim
