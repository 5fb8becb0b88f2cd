#include "shim/broker.hpp"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "base/log.hpp"

namespace cellrund::shim {
namespace {

using base::Errc;
using base::Error;
using base::Result;
using base::Status;

// More than the broker takes for anything, on a loaded machine.
constexpr std::chrono::seconds kAnswerBudget(10);

}  // namespace

Result<base::UniqueFd> receive_answer(int socket) {
  if (!CR_TRY(base::wait_readable(socket, base::Deadline::after(kAnswerBudget)))) {
    return Error(Errc::kDeadlineExceeded, "no answer in time");
  }
  std::array<char, sizeof(Answer) + kMaxAnswerText> bytes{};
  iovec part{bytes.data(), bytes.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const ssize_t n = ::recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  base::UniqueFd fd;
  const cmsghdr* const rights = n < 0 ? nullptr : CMSG_FIRSTHDR(&message);
  if (rights != nullptr && rights->cmsg_level == SOL_SOCKET && rights->cmsg_type == SCM_RIGHTS) {
    int number = -1;
    std::memcpy(&number, CMSG_DATA(rights), sizeof(number));
    fd.reset(number);
  }
  Answer answer;
  if (n < static_cast<ssize_t>(sizeof(answer))) {
    return Error(Errc::kDataLoss, "it is gone");
  }
  std::memcpy(&answer, bytes.data(), sizeof(answer));
  if (answer.failed != 0) {
    const auto code = static_cast<Errc>(std::min(answer.code, static_cast<std::uint32_t>(Errc::kDataLoss)));
    return Error(code == Errc::kDataLoss || code == Errc::kDeadlineExceeded ? Errc::kUnknown : code,  // these two: no answer
                 std::string(bytes.data() + sizeof(answer), static_cast<std::size_t>(n) - sizeof(answer)));
  }
  return fd;
}

Broker::~Broker() {
  if (socket_) {
    loop_.unwatch(socket_.get());
  }
}

Status Broker::start(const BrokerDuties& duties) {
  CR_ASSERT(!running());
  socket_ = CR_TRY(start_broker(duties));
  CR_CHECK(receive_answer(socket_.get()).context("the broker does not come up"));
  const timeval budget{kAnswerBudget.count(), 0};
  if (::setsockopt(socket_.get(), SOL_SOCKET, SO_SNDTIMEO, &budget, sizeof(budget)) != 0) {
    return Error::from_errno("setsockopt SO_SNDTIMEO");
  }
  return loop_.watch(socket_.get(), EPOLLIN, [this](std::uint32_t) { on_readable(); });
}

void Broker::kill() { (void)send({.ask = Ask::kKill}); }

void Broker::publish(const TaskEvent& event) {
  (void)send({.ask = Ask::kPublish,
              .detail = static_cast<std::uint32_t>(event.topic),
              .status = event.end.status,
              .nanos = event.end.at.nanos,
              .seconds = event.end.at.seconds},
             event.exec_id);
}

Result<base::UniqueFd> Broker::open_fifo(const std::string& path, int flags) {
  base::UniqueFd fd = CR_TRY(ask({.ask = Ask::kOpenFifo, .detail = flags == O_RDWR ? 1U : 0U}, path));
  if (!fd) {
    return Error(Errc::kUnavailable, "open " + base::log::quoted(path) + ": no descriptor came");
  }
  return fd;
}

Status Broker::started(base::BootTime when, const std::string& guest_kernel_release) {
  CR_CHECK(ask({.ask = Ask::kStarted, .seconds = when.ns}, guest_kernel_release));
  return base::ok();
}

Status Broker::ended(const std::string& report) {
  CR_CHECK(ask({.ask = Ask::kEnded}, report));
  return base::ok();
}

Status Broker::remove_group() {
  CR_CHECK(ask({.ask = Ask::kRemoveGroup}));
  return base::ok();
}

void Broker::leave() { (void)send({.ask = Ask::kLeave}); }

Status Broker::send(const Request& request, std::string_view text) {
  if (text.size() > kMaxRequestText) {
    return Error(Errc::kInvalidArgument, "ask the broker: too long");
  }
  std::string bytes(reinterpret_cast<const char*>(&request), sizeof(request));
  bytes += text;
  ssize_t n = 0;
  do {
    n = ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
  } while (n < 0 && errno == EINTR);
  if (n < 0) {
    const Error why = Error::from_errno("ask the broker");
    lost();
    return why.clone();
  }
  return base::ok();
}

Result<base::UniqueFd> Broker::ask(const Request& request, std::string_view text) {
  CR_CHECK(send(request, text));
  Result<base::UniqueFd> answer = receive_answer(socket_.get());
  if (!answer.ok() && (answer.error().code() == Errc::kDataLoss || answer.error().code() == Errc::kDeadlineExceeded)) {
    lost();  // an answer that came now would be taken for the next one's
  }
  return answer;
}

// It says nothing unasked: this is its end.
void Broker::on_readable() { lost(); }

void Broker::lost() {
  if (socket_) {
    loop_.unwatch(socket_.get());
    socket_.reset();
    gone_();
  }
}

}  // namespace cellrund::shim
