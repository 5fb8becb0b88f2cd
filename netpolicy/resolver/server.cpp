#include "netpolicy/resolver/server.hpp"

#include <netinet/in.h>
#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <map>
#include <vector>

#include "netpolicy/resolver/engine.hpp"
#include "netpolicy/resolver/read_budget.hpp"

namespace cellrund::netpolicy::resolver {
namespace {

using base::BootTime;
using base::Errc;
using base::Error;
using base::UniqueFd;

constexpr std::uint16_t kPort = 53;
constexpr std::size_t kMaxConnections = 8;        // of the cell
constexpr std::chrono::seconds kIdle{5};          // of one of them
constexpr std::size_t kMostUnread = 64UL * 1024;  // that waits for the other side to read

std::uint16_t random_id() {
  std::uint16_t id = 0;
  while (::getrandom(&id, sizeof id, 0) != static_cast<ssize_t>(sizeof id)) {
  }
  return id;
}

base::Bytes framed(const base::Bytes& message) {
  base::Bytes out{static_cast<std::uint8_t>(message.size() >> 8U), static_cast<std::uint8_t>(message.size())};
  out.insert(out.end(), message.begin(), message.end());
  return out;
}

// A stream of length-prefixed messages (RFC 1035, 4.2.2), non-blocking. Once it is broken it stays so.
class Stream {
 public:
  Stream(UniqueFd fd, std::size_t longest) : fd_(std::move(fd)), longest_(longest) {}

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  [[nodiscard]] bool broken() const noexcept { return broken_; }
  [[nodiscard]] short wanted() const noexcept { return static_cast<short>(POLLIN | (out_.empty() ? 0 : POLLOUT)); }

  void send(const base::Bytes& message) {
    const base::Bytes bytes = framed(message);
    out_.insert(out_.end(), bytes.begin(), bytes.end());
    broken_ = broken_ || out_.size() > kMostUnread;
  }
  void flush() {
    while (!broken_ && !out_.empty()) {
      const ssize_t n = ::send(fd_.get(), out_.data(), out_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (n < 0) {
        broken_ = errno != EAGAIN && errno != EINTR;
        return;
      }
      out_.erase(out_.begin(), out_.begin() + n);
    }
  }
  // One read; then every whole message that is there, in order.
  std::vector<base::Bytes> receive() {
    std::array<std::uint8_t, 4096> buffer{};
    const ssize_t n = ::recv(fd_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (n <= 0) {
      broken_ = n == 0 || (errno != EAGAIN && errno != EINTR);
      return {};
    }
    in_.insert(in_.end(), buffer.begin(), buffer.begin() + n);
    std::vector<base::Bytes> out;
    while (in_.size() >= 2) {
      const std::size_t length = static_cast<std::size_t>(in_[0]) << 8U | in_[1];
      if (length > longest_) {
        broken_ = true;
        break;
      }
      if (in_.size() < 2 + length) {
        break;
      }
      const auto end = in_.begin() + static_cast<std::ptrdiff_t>(2 + length);
      out.emplace_back(in_.begin() + 2, end);
      in_.erase(in_.begin(), end);
    }
    return out;
  }

 private:
  UniqueFd fd_;
  std::size_t longest_;
  base::Bytes in_, out_;
  bool broken_ = false;
};

struct Connection {
  Stream stream;
  BootTime idle_at;
};
struct Asking {
  UniqueFd datagram;
  std::optional<Stream> stream;
};

class Server {
 public:
  explicit Server(Orders orders) : engine_(std::move(orders), random_id) {}

  base::Status run() {
    CR_CHECK(tell_daemon(encode(FromResolver{Ready{}})));
    while (!ended_) {
      CR_CHECK(wait());
      engine_.tick(now_);
      CR_CHECK(carry_out());
      drop_idle();
    }
    return base::ok();
  }

 private:
  // Polls everything once and feeds the engine with what has come.
  base::Status wait() {
    now_ = BootTime::now();
    std::vector<pollfd> polls{{kControlFd, POLLIN, 0},
                              {may_read() ? kDatagramFd : -1, POLLIN, 0},
                              {may_read() && connections_.size() < kMaxConnections ? kListenerFd : -1, POLLIN, 0}};
    std::vector<std::uint64_t> whose;
    for (const auto& [number, connection] : connections_) {
      polls.push_back({may_read() ? connection.stream.fd() : -1, connection.stream.wanted(), 0});
      whose.push_back(number);
    }
    const std::size_t first_asking = polls.size();
    for (const auto& [lookup, asking] : asking_) {
      polls.push_back({asking.stream.has_value() ? asking.stream->fd() : asking.datagram.get(),
                       asking.stream.has_value() ? asking.stream->wanted() : short{POLLIN}, 0});
      whose.push_back(lookup);
    }
    if (::poll(polls.data(), polls.size(), timeout_ms()) < 0) {
      return errno == EINTR ? base::ok() : base::Status(Error::from_errno("poll"));
    }
    now_ = BootTime::now();
    if (polls[0].revents != 0) {
      hear_daemon();
    }
    if (polls[1].revents != 0) {
      hear_datagrams();
    }
    if (polls[2].revents != 0) {
      accept_one();
    }
    for (std::size_t i = 3; i < polls.size(); ++i) {
      if (polls[i].revents == 0) {
        continue;
      }
      if (i < first_asking) {
        hear_connection(whose[i - 3]);
      } else {
        hear_upstream(static_cast<std::uint32_t>(whose[i - 3]), polls[i].revents);
      }
    }
    return base::ok();
  }

  void hear_daemon() {
    std::array<std::uint8_t, kMaxChannelMessage> buffer{};
    const ssize_t n = ::recv(kControlFd, buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
      ended_ = true;
      return;
    }
    if (n > 0) {
      if (const auto decision = decode_decision({buffer.data(), static_cast<std::size_t>(n)}); decision.has_value()) {
        engine_.decided(*decision, now_);
      }
    }
  }

  // Only the cell can send here, from its one address; its port is whom to answer.
  void hear_datagrams() {
    constexpr int kAtOnce = 16;
    std::array<std::uint8_t, kMaxDatagram + 1> buffer{};
    for (int i = 0; i < kAtOnce && may_read(); ++i) {
      sockaddr_in from{};
      socklen_t size = sizeof from;
      const ssize_t n = ::recvfrom(kDatagramFd, buffer.data(), buffer.size(), MSG_DONTWAIT,
                                   reinterpret_cast<sockaddr*>(&from), &size);
      if (n < 0) {
        return;
      }
      count_read();
      const std::uint64_t token = static_cast<std::uint64_t>(from.sin_addr.s_addr) << 16U | from.sin_port;
      engine_.query({token, false}, {buffer.data(), static_cast<std::size_t>(n)}, now_);
    }
  }

  void accept_one() {
    count_read();
    UniqueFd fd(::accept4(kListenerFd, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (fd) {
      connections_.emplace(next_connection_++, Connection{Stream(std::move(fd), kMaxDatagram), now_ + kIdle});
    }
  }

  void hear_connection(std::uint64_t number) {
    Connection& connection = connections_.at(number);
    connection.stream.flush();
    count_read();  // also of less than a message
    for (const base::Bytes& message : connection.stream.receive()) {
      count_read();
      connection.idle_at = now_ + kIdle;
      engine_.query({number, true}, message, now_);
    }
    if (connection.stream.broken()) {
      connections_.erase(number);
    }
  }

  void hear_upstream(std::uint32_t lookup, short events) {
    const auto found = asking_.find(lookup);
    if (found == asking_.end()) {
      return;
    }
    Asking& asking = found->second;
    if (asking.stream.has_value()) {
      asking.stream->flush();
      for (const base::Bytes& message : asking.stream->receive()) {
        engine_.answer(lookup, message, now_);
      }
      if (asking.stream->broken()) {
        engine_.unreachable(lookup, now_);
      }
      return;
    }
    std::array<std::uint8_t, 4096> buffer{};
    const ssize_t n = ::recv(asking.datagram.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (n >= 0) {
      engine_.answer(lookup, {buffer.data(), static_cast<std::size_t>(n)}, now_);
    } else if ((events & POLLERR) != 0) {
      engine_.unreachable(lookup, now_);
    }
  }

  base::Status carry_out() {
    for (std::vector<Effect> effects = engine_.take(); !effects.empty(); effects = engine_.take()) {
      for (const Effect& effect : effects) {
        if (const auto* tell = std::get_if<Tell>(&effect); tell != nullptr) {
          CR_CHECK(tell_daemon(encode(tell->message)));
        } else if (const auto* reply = std::get_if<SendReply>(&effect); reply != nullptr) {
          send(*reply);
        } else if (const auto* ask = std::get_if<AskUpstream>(&effect); ask != nullptr) {
          start_asking(*ask);
        } else if (const auto* stop = std::get_if<StopAsking>(&effect); stop != nullptr) {
          asking_.erase(stop->lookup);
        }
      }
    }
    return base::ok();
  }

  // A reply that cannot be sent is lost, as any datagram may be.
  void send(const SendReply& reply) {
    if (!reply.client.stream) {
      sockaddr_in to{};
      to.sin_family = AF_INET;
      to.sin_addr.s_addr = static_cast<in_addr_t>(reply.client.token >> 16U);
      to.sin_port = static_cast<in_port_t>(reply.client.token & 0xffffU);
      (void)::sendto(kDatagramFd, reply.message.data(), reply.message.size(), MSG_DONTWAIT,
                     reinterpret_cast<const sockaddr*>(&to), sizeof to);
      return;
    }
    if (const auto connection = connections_.find(reply.client.token); connection != connections_.end()) {
      connection->second.stream.send(reply.message);
      connection->second.stream.flush();
    }
  }

  // A new socket for each question: its port is as hard to guess as its id, and connected it hears nobody else.
  void start_asking(const AskUpstream& ask) {
    asking_.erase(ask.lookup);
    UniqueFd fd(::socket(AF_INET, (ask.stream ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(kPort);
    to.sin_addr.s_addr = htonl(ask.upstream);
    if (!fd || (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0 && errno != EINPROGRESS)) {
      engine_.unreachable(ask.lookup, now_);
      return;
    }
    if (ask.stream) {
      Stream stream(std::move(fd), kMaxMessage);
      stream.send(ask.message);
      asking_.emplace(ask.lookup, Asking{{}, std::move(stream)});
      return;
    }
    if (::send(fd.get(), ask.message.data(), ask.message.size(), MSG_NOSIGNAL) < 0) {
      engine_.unreachable(ask.lookup, now_);
      return;
    }
    asking_.emplace(ask.lookup, Asking{std::move(fd), std::nullopt});
  }

  void drop_idle() {
    std::erase_if(connections_,
                  [this](const auto& entry) { return entry.second.idle_at <= now_ || entry.second.stream.broken(); });
  }

  // Reading is paid for in time, as the queries themselves are.
  [[nodiscard]] bool may_read() const noexcept { return reads_.left(now_); }
  void count_read() noexcept { reads_.spend(now_); }

  [[nodiscard]] int timeout_ms() const {
    std::optional<BootTime> next = engine_.next_deadline();
    const auto sooner = [&next](BootTime at) { next = next.has_value() ? std::min(*next, at) : at; };
    for (const auto& [number, connection] : connections_) {
      sooner(connection.idle_at);
    }
    if (!may_read()) {
      sooner(now_ + std::chrono::milliseconds(20));
    }
    if (!next.has_value()) {
      return -1;
    }
    constexpr std::int64_t kLongest = 60'000;
    return static_cast<int>(std::clamp<std::int64_t>((*next - now_).count() / 1'000'000 + 1, 0, kLongest));
  }

  Engine engine_;
  BootTime now_;
  ReadBudget reads_;
  std::map<std::uint64_t, Connection> connections_;
  std::uint64_t next_connection_ = 1;
  std::map<std::uint32_t, Asking> asking_;
  bool ended_ = false;
};

}  // namespace

base::Status tell_daemon(base::BytesView message) {
  while (::send(kControlFd, message.data(), message.size(), MSG_NOSIGNAL) < 0) {
    if (errno != EINTR) {
      return Error::from_errno("tell the daemon");
    }
  }
  return base::ok();
}

base::Status serve(Orders orders) {
  return Server(std::move(orders)).run();
}

}  // namespace cellrund::netpolicy::resolver
