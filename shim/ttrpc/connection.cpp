#include "shim/ttrpc/connection.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "containerd_shim.pb.h"

namespace cellrund::shim::ttrpc {
namespace {

// Calls of one connection that wait for an answer. containerd has a handful.
constexpr std::size_t kMaxOpenCalls = 256;
// Answers that the peer has not read yet.
constexpr std::size_t kMaxUnsent = 8U << 20U;

// google.rpc.Code
constexpr int kInvalidArgument = 3;
constexpr int kResourceExhausted = 8;

}  // namespace

base::Status Connection::start() {
  // The loop holds no ownership: Server closes the connection before it lets go of it.
  return server_.loop_.watch(socket_.get(), EPOLLIN, [this](std::uint32_t events) {
    const std::shared_ptr<Connection> alive = shared_from_this();
    if (!on_ready(events) || broken_) {
      server_.close(socket_.get());
    }
  });
}

void Connection::stop() {
  if (socket_) {
    server_.loop_.unwatch(socket_.get());
    socket_.reset();
  }
}

bool Connection::on_ready(std::uint32_t events) {
  if ((events & EPOLLOUT) != 0 && !write_some()) {
    return false;
  }
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
    return read_some();
  }
  return true;
}

bool Connection::read_some() {
  std::array<std::uint8_t, 65536> buffer;  // NOLINT(cppcoreguidelines-pro-type-member-init): filled by recv
  const ssize_t n = ::recv(socket_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (n < 0) {
    return errno == EAGAIN || errno == EINTR;
  }
  if (n == 0) {
    return false;
  }
  base::BytesView bytes(buffer.data(), static_cast<std::size_t>(n));
  while (!bytes.empty()) {
    std::optional<Frame> frame = parser_.next(bytes);
    if (frame.has_value() && !take(std::move(*frame))) {
      return false;
    }
  }
  return true;
}

bool Connection::take(Frame frame) {
  // A client's streams are odd; each unary call is one request frame (PROTOCOL.md, "Stream ID", "Message Types").
  if (frame.type != static_cast<std::uint8_t>(FrameType::kRequest) || frame.stream % 2 == 0) {
    return false;
  }
  if (open_streams_.contains(frame.stream)) {
    return false;
  }
  if (frame.too_long) {
    answer(frame.stream, kResourceExhausted, "request is longer than 4 MiB", {});
    return true;
  }
  if (open_streams_.size() >= kMaxOpenCalls) {
    answer(frame.stream, kResourceExhausted, "too many calls at once on one connection", {});
    return true;
  }
  shimapi::Request request;
  if (frame.flags != 0 || !request.ParseFromString(frame.payload)) {
    answer(frame.stream, kInvalidArgument, "not a unary ttrpc request", {});
    return true;
  }
  open_streams_.insert(frame.stream);
  Call call{std::move(*request.mutable_service()), std::move(*request.mutable_method()),
            std::move(*request.mutable_payload())};
  server_.handler_(std::move(call), Reply(weak_from_this(), frame.stream));
  return true;
}

void Connection::answer(std::uint32_t stream, int code, std::string_view message, std::string_view payload) {
  open_streams_.erase(stream);
  if (!socket_ || broken_) {
    return;
  }
  shimapi::Response response;
  if (code != 0) {
    response.mutable_status()->set_code(code);
    response.mutable_status()->set_message(std::string(message));
  } else {
    response.set_payload(std::string(payload));
  }
  out_ += encode_frame(stream, FrameType::kResponse, response.SerializeAsString());
  // Closing is left to the loop's next turn: the caller may stand in the middle of a callback of this connection.
  if (out_.size() > kMaxUnsent || !write_some()) {
    broken_ = true;
    (void)::shutdown(socket_.get(), SHUT_RDWR);  // wakes the loop; ENOTCONN is as good
  }
}

bool Connection::write_some() {
  while (!out_.empty()) {
    const ssize_t n = ::send(socket_.get(), out_.data(), out_.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0) {
      if (errno == EINTR) {
        continue;
      }
      if (errno == EAGAIN) {
        return server_.loop_.modify(socket_.get(), EPOLLIN | EPOLLOUT).ok();
      }
      return false;
    }
    out_.erase(0, static_cast<std::size_t>(n));
  }
  return server_.loop_.modify(socket_.get(), EPOLLIN).ok();
}

}  // namespace cellrund::shim::ttrpc
