#include "cell/secret_server.hpp"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>

#include "base/file.hpp"

namespace cellrund::cell {

using base::Errc;
using base::Error;

namespace {
// A shim reads at once; one that does not is not worth a thread.
constexpr timeval kSendPatience{5, 0};
}  // namespace

base::Result<SecretServer> SecretServer::create(std::string path) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  if (path.size() >= sizeof(name.sun_path)) {
    return Error(Errc::kInvalidArgument, path + " is too long for a socket path");
  }
  path.copy(name.sun_path, path.size());
  base::UniqueFd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!listener) {
    return Error::from_errno("socket");
  }
  // The socket file takes its mode from the descriptor's (unix(7)).
  if (::fchmod(listener.get(), S_IRUSR | S_IWUSR) != 0 ||
      ::bind(listener.get(), reinterpret_cast<const sockaddr*>(&name), sizeof(name)) != 0 || ::listen(listener.get(), 1) != 0) {
    return Error::from_errno("listen " + path);
  }
  return SecretServer(std::move(path), std::move(listener));
}

SecretServer::~SecretServer() {
  if (listener_) {
    (void)base::remove_file(path_);  // the cell's folder goes with all that is in it
  }
}

base::Status SecretServer::hand_over(const std::vector<wire::NamedSecret>& secrets, pid_t shim, base::Deadline deadline) {
  if (!CR_TRY(base::wait_readable(listener_.get(), deadline))) {
    return Error(Errc::kDeadlineExceeded, "the shim did not ask for the job's secrets");
  }
  const base::UniqueFd peer(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!peer) {
    return Error::from_errno("accept");
  }
  ucred who{};
  socklen_t size = sizeof(who);
  if (::getsockopt(peer.get(), SOL_SOCKET, SO_PEERCRED, &who, &size) != 0) {
    return Error::from_errno("getsockopt SO_PEERCRED");
  }
  if (who.uid != 0 || who.pid != shim) {
    return Error(Errc::kPermissionDenied, "process " + std::to_string(who.pid) + " asked for the job's secrets, and the shim is " +
                                              std::to_string(shim));
  }
  if (::setsockopt(peer.get(), SOL_SOCKET, SO_SNDTIMEO, &kSendPatience, sizeof(kSendPatience)) != 0) {
    return Error::from_errno("setsockopt SO_SNDTIMEO");
  }
  const base::WipedBytes message = wire::encode_secrets(secrets);
  base::BytesView rest(message);
  while (!rest.empty()) {
    const ssize_t n = ::send(peer.get(), rest.data(), rest.size(), MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n <= 0) {
      return Error::from_errno("hand the job's secrets over");
    }
    rest = rest.subspan(static_cast<std::size_t>(n));
  }
  return base::ok();
}

}  // namespace cellrund::cell
