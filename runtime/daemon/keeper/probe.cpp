#include "daemon/keeper/probe.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "base/fd.hpp"
#include "base/file.hpp"

namespace cellrund::daemon::keeper {
namespace {

using namespace std::string_view_literals;

// Connection preface and an empty SETTINGS frame (RFC 9113 sections 3.4 and 6.5).
constexpr std::string_view kHello = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"sv;
constexpr std::size_t kFrameHeader = 9;
constexpr std::size_t kTypeOffset = 3;
constexpr char kSettings = 4;

}  // namespace

Answer probe(const std::string& socket_path, pid_t pid, base::Deadline deadline) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket_path.size() >= sizeof address.sun_path) {
    return Answer::kNobody;
  }
  std::memcpy(address.sun_path, socket_path.data(), socket_path.size());
  // Non-blocking: a full backlog answers EAGAIN instead of waiting for a process that may never accept.
  const base::UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) {
    return Answer::kSilent;
  }
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return errno == EAGAIN ? Answer::kSilent : Answer::kNobody;
  }
  ucred peer{};
  socklen_t length = sizeof peer;
  if (::getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0 || peer.pid != pid) {
    return Answer::kNobody;
  }
  if (::send(fd.get(), kHello.data(), kHello.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(kHello.size())) {
    return Answer::kSilent;
  }
  std::array<char, kFrameHeader> header{};
  std::size_t have = 0;
  while (have < header.size()) {
    const auto ready = base::wait_readable(fd.get(), deadline);
    if (!ready.ok() || !*ready) {
      return Answer::kSilent;
    }
    const ssize_t n = ::recv(fd.get(), header.data() + have, header.size() - have, 0);
    if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN)) {
      return Answer::kSilent;
    }
    have += n > 0 ? static_cast<std::size_t>(n) : 0;
  }
  return header[kTypeOffset] == kSettings ? Answer::kServes : Answer::kSilent;
}

}  // namespace cellrund::daemon::keeper
