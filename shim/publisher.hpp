// Task events to containerd: over its ttRPC socket (TTRPC_ADDRESS, Events.Forward), or by its `publish` command where no
// such socket was given. In order, one at a time; kept and sent again while containerd is away (it may restart under a
// running job). Lives in the broker, on its loop's thread.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>

#include "base/process.hpp"
#include "base/result.hpp"
#include "shim/children.hpp"
#include "shim/loop.hpp"
#include "shim/ttrpc/frame.hpp"

namespace cellrund::shim {

struct PublisherOptions {
  std::string ttrpc_address;   // path, with or without unix://; empty: use the command
  std::string grpc_address;    // for the command
  std::string publish_binary;  // absolute path of containerd
  std::string containerd_namespace;
};

class Publisher {
 public:
  static base::Result<std::unique_ptr<Publisher>> create(Loop& loop, Children& children, PublisherOptions options);
  Publisher(const Publisher&) = delete;
  Publisher& operator=(const Publisher&) = delete;
  Publisher(Publisher&&) = delete;
  Publisher& operator=(Publisher&&) = delete;
  ~Publisher();

  // `type_url` is the bare protobuf name, as containerd's typeurl package wants it.
  void publish(std::string_view topic, std::string_view type_url, std::string event);
  [[nodiscard]] bool idle() const noexcept { return queue_.empty(); }

 private:
  struct Event {
    std::string topic;
    std::string any;      // serialised google.protobuf.Any
    std::string forward;  // serialised ForwardRequest
  };

  Publisher(Loop& loop, Children& children, PublisherOptions options)
      : loop_(loop), children_(children), options_(std::move(options)) {}
  void send_next();
  base::Status send_by_socket(const Event& event);
  base::Status send_by_command(const Event& event);
  void on_socket(std::uint32_t events);
  void delivered();
  void failed(const std::string& why);
  void disconnect();

  Loop& loop_;
  Children& children_;
  PublisherOptions options_;
  std::deque<Event> queue_;
  bool in_flight_ = false;
  int attempts_ = 0;
  base::UniqueFd socket_;
  ttrpc::FrameParser parser_;
  std::uint32_t next_stream_ = 1;
  base::PidFd command_;
  std::unique_ptr<Timer> timer_;  // in flight: the answer's deadline; else: the next attempt
};

}  // namespace cellrund::shim
