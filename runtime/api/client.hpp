// Client of the native socket: one connection, one request at a time, for one thread.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "api/messages.hpp"
#include "base/clock.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"

namespace cellrund::api {

class Client {
 public:
  // kUnavailable "cellrund is not running at PATH", kPermissionDenied when the socket's mode forbids it; both are
  // messages for people.
  static base::Result<Client> connect(const std::string& socket_path, base::Deadline deadline);

  // For everything that is not followed. kUnavailable when the daemon went away: whether it acted is then unknown.
  base::Result<Response> call(const Request& request, base::Deadline deadline);

  // For Watch, Logs and followed GetFlows: `on_item` gets each response before the end; false ends the stream (and the connection).
  // Success means that the End marker came. `silence` bounds the wait for one response; a job may be quiet for long.
  base::Result<std::optional<Failure>> stream(const Request& request, base::Nanoseconds silence,
                                              const std::function<bool(Response)>& on_item);

  // The two halves of stream(), for a caller that waits for other events as well: fd() is readable when a response is
  // about to come. `idle` bounds the wait for its first byte.
  base::Status send(const Request& request);
  base::Result<Response> receive(base::Nanoseconds idle);
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

 private:
  explicit Client(base::UniqueFd fd) : fd_(std::move(fd)) {}
  base::UniqueFd fd_;
};

}  // namespace cellrund::api
