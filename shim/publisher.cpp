#include "shim/publisher.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>

#include "base/log.hpp"
#include "containerd_shim.pb.h"

namespace cellrund::shim {
namespace {

using base::Error;
using base::Result;
using base::Status;

constexpr std::chrono::seconds kAnswerBudget(5);
constexpr std::chrono::seconds kRetryDelay(1);
constexpr std::size_t kMaxQueued = 64;  // a task has four events in its life

Result<base::UniqueFd> connect_unix(std::string_view address) {
  constexpr std::string_view kScheme = "unix://";
  if (address.starts_with(kScheme)) {
    address.remove_prefix(kScheme.size());
  }
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  if (address.empty() || address.size() >= sizeof(name.sun_path)) {
    return Error(base::Errc::kInvalidArgument, "event socket path is empty or too long");
  }
  std::memcpy(name.sun_path, address.data(), address.size());
  base::UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) {
    return Error::from_errno("socket");
  }
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&name), sizeof(name)) != 0) {
    return Error::from_errno("connect " + std::string(address));
  }
  return socket;
}

}  // namespace

Result<std::unique_ptr<Publisher>> Publisher::create(Loop& loop, Children& children, PublisherOptions options) {
  std::unique_ptr<Publisher> publisher(new Publisher(loop, children, std::move(options)));
  publisher->timer_ = CR_TRY(Timer::create(loop, [raw = publisher.get()] {
    if (raw->in_flight_) {
      raw->failed("no answer in time");
    } else {
      raw->send_next();
    }
  }));
  return publisher;
}

Publisher::~Publisher() {
  disconnect();
  if (command_.valid()) {
    children_.forget(command_.id().pid);
  }
}

void Publisher::publish(std::string_view topic, std::string_view type_url, std::string event) {
  if (queue_.size() >= kMaxQueued) {
    base::log::error("event queue is full: dropped " + std::string(topic));
    return;
  }
  shimapi::ForwardRequest request;
  shimapi::Envelope& envelope = *request.mutable_envelope();
  const base::WallTime now = base::WallTime::now();
  envelope.mutable_timestamp()->set_seconds(now.seconds);
  envelope.mutable_timestamp()->set_nanos(now.nanos);
  envelope.set_namespace_(options_.containerd_namespace);
  envelope.set_topic(std::string(topic));
  envelope.mutable_event()->set_type_url(std::string(type_url));
  envelope.mutable_event()->set_value(std::move(event));
  queue_.push_back(Event{std::string(topic), envelope.event().SerializeAsString(), request.SerializeAsString()});
  if (queue_.size() == 1) {
    send_next();
  }
}

void Publisher::send_next() {
  if (queue_.empty() || in_flight_) {
    return;
  }
  in_flight_ = true;
  const Event& event = queue_.front();
  const Status sent = options_.ttrpc_address.empty() ? send_by_command(event) : send_by_socket(event);
  if (!sent.ok()) {
    failed(sent.error().message());
    return;
  }
  (void)timer_->arm_after(kAnswerBudget);  // cannot fail for a valid timer
}

Status Publisher::send_by_socket(const Event& event) {
  if (!socket_) {
    socket_ = CR_TRY(connect_unix(options_.ttrpc_address));
    parser_ = {};
    next_stream_ = 1;
    CR_CHECK(loop_.watch(socket_.get(), EPOLLIN, [this](std::uint32_t events) { on_socket(events); }));
  }
  shimapi::Request request;
  request.set_service("containerd.services.events.ttrpc.v1.Events");
  request.set_method("Forward");
  request.set_payload(event.forward);
  request.set_timeout_nano(std::chrono::nanoseconds(kAnswerBudget).count());
  shimapi::KeyValue& header = *request.add_metadata();
  header.set_key("containerd-namespace-ttrpc");
  header.set_value(options_.containerd_namespace);
  const std::string frame =
      ttrpc::encode_frame(next_stream_, ttrpc::FrameType::kRequest, request.SerializeAsString());
  next_stream_ += 2;
  // An event is far smaller than an empty socket buffer, and one at a time is in flight: a short write means a dead peer.
  const ssize_t n = ::send(socket_.get(), frame.data(), frame.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  if (n != static_cast<ssize_t>(frame.size())) {
    return n < 0 ? Error::from_errno("send event") : Error(base::Errc::kUnavailable, "send event: cut short");
  }
  return base::ok();
}

Status Publisher::send_by_command(const Event& event) {
  base::SpawnOptions spawn;
  spawn.argv = {options_.publish_binary, "--address",   options_.grpc_address,
                "publish",               "--topic",     event.topic,
                "--namespace",           options_.containerd_namespace};
  const base::UniqueFd input = CR_TRY(base::sealed_memfd("event", base::as_bytes(event.any)));
  spawn.fds = {{input.get(), 0}};
  command_ = CR_TRY(base::spawn(spawn));
  children_.on_exit(command_.id().pid, [this](base::ExitStatus exit) {
    command_ = {};
    if (!exit.signaled && exit.value == 0) {
      delivered();
    } else {
      failed("the publish command failed");
    }
  });
  return base::ok();
}

void Publisher::on_socket(std::uint32_t) {
  std::array<std::uint8_t, 4096> buffer{};
  const ssize_t n = ::recv(socket_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
    return;
  }
  if (n <= 0) {
    const bool waiting = in_flight_;
    disconnect();
    if (waiting) {
      failed("containerd closed the event connection");
    }
    return;
  }
  base::BytesView bytes(buffer.data(), static_cast<std::size_t>(n));
  while (!bytes.empty()) {
    const std::optional<ttrpc::Frame> frame = parser_.next(bytes);
    if (!frame.has_value() || frame->stream + 2 != next_stream_ || !in_flight_) {
      continue;  // not complete yet, or an answer that came too late
    }
    shimapi::Response response;
    if (frame->too_long || !response.ParseFromString(frame->payload) || response.status().code() != 0) {
      failed("refused: " + base::log::quoted(response.status().message()));
      return;
    }
    delivered();
  }
}

void Publisher::delivered() {
  timer_->disarm();
  in_flight_ = false;
  attempts_ = 0;
  queue_.pop_front();
  send_next();
}

void Publisher::failed(const std::string& why) {
  disconnect();
  if (command_.valid()) {
    children_.forget(command_.id().pid);
    (void)command_.signal(SIGKILL);  // it may have exited meanwhile; reaped either way
    command_ = {};
  }
  in_flight_ = false;
  ++attempts_;
  if (attempts_ == 1) {
    base::log::warn("event " + queue_.front().topic + " not delivered (" + why + "), trying again");
  }
  (void)timer_->arm_after(kRetryDelay);  // cannot fail for a valid timer
}

void Publisher::disconnect() {
  if (socket_) {
    loop_.unwatch(socket_.get());
    socket_.reset();
  }
}

}  // namespace cellrund::shim
