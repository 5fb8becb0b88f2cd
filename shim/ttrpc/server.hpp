// The ttRPC server of the shim: accepts connections on one listening socket, decodes unary requests and hands each one
// with a Reply to the handler. Handlers answer whenever they like (Wait takes hours), in any order. Lives on the loop's
// thread. A peer that is not root, or not our own user, is turned away (SO_PEERCRED, unix(7)).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "shim/loop.hpp"

namespace cellrund::shim::ttrpc {

class Connection;

struct Call {
  std::string service;
  std::string method;
  std::string payload;
};

// The answer to one call. Sent at most once; dropped unanswered it tells the caller that the call was cancelled. Harmless
// when the connection is gone by then.
class Reply {
 public:
  Reply(std::weak_ptr<Connection> connection, std::uint32_t stream)
      : connection_(std::move(connection)), stream_(stream) {}
  Reply(Reply&&) noexcept = default;
  Reply& operator=(Reply&&) = delete;
  Reply(const Reply&) = delete;
  Reply& operator=(const Reply&) = delete;
  ~Reply();

  void send(std::string_view payload) &&;
  void fail(const base::Error& error) &&;

 private:
  void finish(int code, std::string_view message, std::string_view payload);
  std::weak_ptr<Connection> connection_;
  std::uint32_t stream_;
};

class Server {
 public:
  using Handler = std::function<void(Call, Reply)>;

  // Starts to accept. `handler` is called on the loop's thread.
  static base::Result<std::unique_ptr<Server>> create(Loop& loop, base::UniqueFd listener, Handler handler);
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;
  Server(Server&&) = delete;
  Server& operator=(Server&&) = delete;
  ~Server();

  // True when every answer given so far has left for the kernel.
  [[nodiscard]] bool flushed() const;

 private:
  friend class Connection;
  Server(Loop& loop, base::UniqueFd listener, Handler handler)
      : loop_(loop), listener_(std::move(listener)), handler_(std::move(handler)) {}
  void accept_all();
  void close(int fd);

  Loop& loop_;
  base::UniqueFd listener_;
  Handler handler_;
  std::unordered_map<int, std::shared_ptr<Connection>> connections_;
};

}  // namespace cellrund::shim::ttrpc
