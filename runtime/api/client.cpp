#include "api/client.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "api/frame.hpp"

namespace cellrund::api {
namespace {

using base::Errc;
using base::Error;

constexpr base::Nanoseconds kFrameBudget = std::chrono::seconds(30);

Error connect_error(const std::string& path, int err) {
  switch (err) {
    case ENOENT: case ECONNREFUSED: case ENOTDIR:
      return Error(Errc::kUnavailable, "cellrund is not running at " + path, err);
    case EACCES: case EPERM:
      return Error(Errc::kPermissionDenied, "connect to " + path + ": permission denied", err);
    case EAGAIN:  // the backlog is full (unix(7))
      return Error(Errc::kUnavailable, "connect to " + path + ": cellrund takes no more connections", err);
    default: return Error::from_errno("connect to " + path, err);
  }
}

base::Result<Response> receive_from(int fd, base::Nanoseconds idle) {
  std::optional<std::string> frame = CR_TRY(read_frame(fd, kMaxResponseBytes, idle, kFrameBudget));
  if (!frame) {
    return Error(Errc::kUnavailable, "cellrund closed the connection");
  }
  return decode_response(base::as_bytes(*frame));
}

base::Status send_to(int fd, const Request& request, base::Deadline deadline) {
  const std::string body = encode(request);
  if (body.size() > kMaxRequestBytes) {
    return Error(Errc::kInvalidArgument, "the request is longer than " + std::to_string(kMaxRequestBytes) + " bytes");
  }
  return write_frame(fd, body, deadline);
}

// A peer that refused us says why and then closes; our own write may fail first. What it said is the better answer.
base::Result<Response> exchange(int fd, const Request& request, base::Deadline deadline) {
  base::Status sent = send_to(fd, request, deadline);
  base::Result<Response> response = receive_from(fd, sent.ok() ? deadline.remaining() : base::Nanoseconds(0));
  if (!sent && !response) {
    return std::move(sent).error();
  }
  return response;
}

}  // namespace

base::Result<Client> Client::connect(const std::string& socket_path, base::Deadline deadline) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket_path.empty() || socket_path.size() >= sizeof(address.sun_path)) {
    return Error(Errc::kInvalidArgument, "connect to " + socket_path + ": not a usable socket path");
  }
  std::memcpy(address.sun_path, socket_path.c_str(), socket_path.size());
  base::UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) {
    return Error::from_errno("socket");
  }
  // A blocking connect(2) to a Unix socket waits while the backlog is full; this bounds it.
  const std::int64_t left = deadline.remaining().count();
  const timeval budget{left / 1'000'000'000, (left % 1'000'000'000) / 1000 + 1};
  if (::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &budget, sizeof(budget)) != 0) {
    return Error::from_errno("setsockopt SO_SNDTIMEO");
  }
  int result = 0;
  do {
    result = ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  } while (result != 0 && errno == EINTR);
  if (result != 0) {
    return connect_error(socket_path, errno);
  }
  return Client(std::move(fd));
}

base::Result<Response> Client::call(const Request& request, base::Deadline deadline) {
  return exchange(fd_.get(), request, deadline);
}

base::Status Client::send(const Request& request) {
  return send_to(fd_.get(), request, base::Deadline::after(kFrameBudget));
}

base::Result<Response> Client::receive(base::Nanoseconds idle) { return receive_from(fd_.get(), idle); }

base::Result<std::optional<Failure>> Client::stream(const Request& request, base::Nanoseconds silence,
                                                    const std::function<bool(Response)>& on_item) {
  CR_CHECK(send(request));
  for (;;) {
    Response response = CR_TRY(receive(silence));
    if (std::holds_alternative<End>(response)) {
      return std::optional<Failure>();
    }
    if (auto* failure = std::get_if<Failure>(&response)) {
      return std::optional<Failure>(std::move(*failure));
    }
    if (!on_item(std::move(response))) {
      fd_.reset();
      return std::optional<Failure>();
    }
  }
}

}  // namespace cellrund::api
