#include "shim/broker_process.hpp"

#include <fcntl.h>
#include <limits.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <memory>
#include <string_view>

#include "base/log.hpp"
#include "shim/children.hpp"
#include "shim/confinement.hpp"
#include "shim/loop.hpp"
#include "shim/stdio.hpp"
#include "shim/wire/messages.hpp"

namespace cellrund::shim {
namespace {

using base::BootTime;
using base::Errc;
using base::Error;
using base::Result;
using base::Status;

// How long events on their way may hold up the end.
constexpr std::chrono::seconds kFarewell(3);
constexpr std::chrono::milliseconds kFarewellStep(20);
// The shim's own timer kills at deadline plus grace, and says why; this one is for a shim that no longer does.
constexpr std::chrono::seconds kAfterTheShim(1);

class BrokerProcess {
 public:
  BrokerProcess(const BrokerDuties& duties, int socket) : duties_(duties), facts_(duties.facts), socket_(socket) {}

  Status run() {
    loop_ = std::make_unique<Loop>(CR_TRY(Loop::create()));
    children_ = CR_TRY(Children::create(*loop_));
    publisher_ = CR_TRY(Publisher::create(*loop_, *children_, duties_.publisher));
    final_timer_ = CR_TRY(Timer::create(*loop_, [this] { end_vmm(); }));
    farewell_timer_ = CR_TRY(Timer::create(*loop_, [this] { leave_when_idle(); }));
    CR_CHECK(loop_->watch(socket_, EPOLLIN, [this](std::uint32_t) { on_readable(); }));
    CR_CHECK(confine_broker(duties_.publisher.ttrpc_address.empty() ? Events::kCommands : Events::kSocket));
    answer(base::ok());
    return loop_->run();
  }

 private:
  void end_vmm() {
    (void)::syscall(SYS_pidfd_send_signal, duties_.vmm, SIGKILL, nullptr, 0);  // already dead is as good
    if (group_ != nullptr) {
      group_->kill();
    }
  }

  void on_readable() {
    const ssize_t n = ::recv(socket_, buffer_.data(), buffer_.size(), MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
      return;
    }
    Request request;
    if (n <= 0) {
      if (!leaving_) {
        base::log::warn("broker: the shim is gone, so its VMM goes");
      }
    } else if (static_cast<std::size_t>(n) >= sizeof(request) && static_cast<std::size_t>(n) < buffer_.size()) {
      std::memcpy(&request, buffer_.data(), sizeof(request));
      if (take(request, {buffer_.data() + sizeof(request), static_cast<std::size_t>(n) - sizeof(request)})) {
        return;
      }
      base::log::error("broker: the shim asked for what it may not ask for; its cell is ended");
    } else {
      base::log::error("broker: the shim sent no request; its cell is ended");
    }
    end_vmm();
    loop_->stop();
  }

  // False: no honest shim sends this.
  bool take(const Request& request, std::string_view text) {
    switch (request.ask) {
      case Ask::kKill: end_vmm(); return true;
      case Ask::kPublish: return publish(request, text);
      case Ask::kOpenFifo: open(request, text); return true;
      case Ask::kStarted: return note_start(request, text);
      case Ask::kEnded: answer(write_end(duties_.bundle, text)); return true;
      case Ask::kRemoveGroup: remove_group(); return true;
      case Ask::kLeave: leave(); return true;
    }
    return false;
  }

  bool publish(const Request& request, std::string_view text) {
    if (request.detail >= kTopics || text.size() > kMaxExecId) {
      return false;
    }
    const EncodedEvent event = encode({.topic = static_cast<Topic>(request.detail),
                                       .exec_id = std::string(text),
                                       .end = {request.status, {request.seconds, request.nanos}}},
                                      duties_.source);
    publisher_->publish(event.topic, event.type, event.bytes);
    return true;
  }

  void open(const Request& request, std::string_view text) {
    if (text.size() >= PATH_MAX || text.find('\0') != std::string_view::npos) {
      answer(Error(Errc::kInvalidArgument, "standard stream: not a path"));
      return;
    }
    const Result<base::UniqueFd> fifo = open_fifo(std::string(text), request.detail == 1 ? O_RDWR : O_RDONLY);
    if (fifo.ok()) {
      answer(base::ok(), fifo->get());
    } else {
      answer(fifo.error().clone());
    }
  }

  // The deadline is armed here too: whoever takes over the shim does not outlive it.
  bool note_start(const Request& request, std::string_view text) {
    const BootTime started{request.seconds};
    if (facts_.started.ns != 0 || started.ns <= 0 || started > BootTime::now() || text.size() > wire::kMaxKernelRelease) {
      return false;
    }
    facts_.started = started;
    facts_.guest_kernel_release = std::string(text);
    if (duties_.active_deadline.has_value()) {
      facts_.deadline = started + *duties_.active_deadline;
      if (!final_timer_->arm(*facts_.deadline + duties_.grace + kAfterTheShim).ok()) {
        return false;
      }
    }
    answer(write_vm_facts(duties_.bundle, facts_));
    return true;
  }

  void remove_group() {
    if (group_ != nullptr) {
      group_->remove();
      group_ = nullptr;  // another's may bear its name from now on
    }
    answer(base::ok());
  }

  void leave() {
    (void)::syscall(SYS_pidfd_send_signal, duties_.vmm, SIGKILL, nullptr, 0);  // dead by now
    (void)base::remove_file(duties_.socket_path);  // `delete` removes it if this does not
    leaving_ = true;
    group_ = nullptr;  // whoever bears its name from now on
    farewell_ = base::Deadline::after(kFarewell);
    leave_when_idle();
  }

  void leave_when_idle() {
    if (publisher_->idle() || farewell_.expired()) {
      loop_->stop();
    } else {
      (void)farewell_timer_->arm_after(kFarewellStep);  // cannot fail for a valid timer
    }
  }

  // A shim that does not take its answers does without.
  void answer(Status status, int fd = -1) {
    std::array<char, sizeof(Answer) + kMaxAnswerText> bytes{};
    Answer head;
    std::size_t size = sizeof(head);
    if (!status.ok()) {
      head = {1, static_cast<std::uint32_t>(status.error().code())};
      const std::string& why = status.error().message();
      size += std::min(why.size(), kMaxAnswerText);
      std::memcpy(bytes.data() + sizeof(head), why.data(), size - sizeof(head));
    }
    std::memcpy(bytes.data(), &head, sizeof(head));
    iovec part{bytes.data(), size};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    if (fd >= 0) {
      message.msg_control = control.data();
      message.msg_controllen = control.size();
      cmsghdr* const rights = CMSG_FIRSTHDR(&message);
      rights->cmsg_level = SOL_SOCKET;
      rights->cmsg_type = SCM_RIGHTS;
      rights->cmsg_len = CMSG_LEN(sizeof(int));
      std::memcpy(CMSG_DATA(rights), &fd, sizeof(fd));
    }
    (void)::sendmsg(socket_, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  }

  const BrokerDuties& duties_;
  const CellGroup* group_ = duties_.group;
  VmFacts facts_;
  int socket_;
  bool leaving_ = false;
  std::unique_ptr<Loop> loop_;
  std::unique_ptr<Children> children_;
  std::unique_ptr<Publisher> publisher_;
  std::unique_ptr<Timer> final_timer_, farewell_timer_;
  base::Deadline farewell_ = base::Deadline::after(base::Nanoseconds(0));
  std::array<char, sizeof(Request) + kMaxRequestText + 1> buffer_{};  // one more than there may be
};

// All but standard error, which is the log, and these.
bool close_all_but(int one, int other) {
  const auto [low, high] = std::minmax({static_cast<unsigned>(one), static_cast<unsigned>(other)});
  const auto close_range = [](unsigned from, unsigned to) { return from > to || ::syscall(SYS_close_range, from, to, 0U) == 0; };
  return close_range(STDERR_FILENO + 1, low - 1) && close_range(low + 1, high - 1) && close_range(high + 1, ~0U);
}

// A copy of the shim's memory, but none of its objects: their descriptors are closed, and no destructor runs.
[[noreturn]] void serve(const BrokerDuties& duties, int socket) {
  (void)::prctl(PR_SET_NAME, "cellrun-broker");
  if (!close_all_but(duties.vmm, socket) || ::chdir("/") != 0) {
    ::_exit(1);
  }
  const auto process = std::make_unique<BrokerProcess>(duties, socket);
  const Status status = process->run();
  if (!status.ok()) {
    base::log::error("broker: " + status.error().message());
  }
  ::_exit(status.ok() ? 0 : 1);
}

}  // namespace

Result<base::UniqueFd> start_broker(const BrokerDuties& duties) {
  base::SocketPair pair = CR_TRY(base::make_socket_pair(SOCK_SEQPACKET));
  const pid_t pid = ::fork();
  if (pid < 0) {
    return Error::from_errno("fork the broker");
  }
  if (pid == 0) {
    serve(duties, pair.theirs.get());
  }
  return std::move(pair.ours);
}

}  // namespace cellrund::shim
