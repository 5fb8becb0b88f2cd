#include "shim/secret_channel.hpp"

#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

namespace cellrund::shim {

using base::Errc;
using base::Error;
using base::Result;

Result<std::unique_ptr<SecretChannel>> SecretChannel::open(Loop& loop, const std::string& path, Received received) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  if (path.empty() || path.front() != '/' || path.size() >= sizeof(name.sun_path)) {
    return Error(Errc::kInvalidArgument, "secrets: not the absolute path of a socket");
  }
  path.copy(name.sun_path, path.size());
  base::UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) {
    return Error::from_errno("socket");
  }
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&name), sizeof(name)) != 0) {
    return Error::from_errno("secrets: connect to " + path);
  }
  std::unique_ptr<SecretChannel> channel(new SecretChannel(loop, std::move(socket), std::move(received)));
  SecretChannel* const raw = channel.get();
  CR_CHECK(loop.watch(raw->socket_.get(), EPOLLIN, [raw](std::uint32_t) { raw->read(); }));
  return channel;
}

SecretChannel::~SecretChannel() {
  if (socket_) {
    loop_.unwatch(socket_.get());
  }
}

void SecretChannel::read() {
  std::array<std::uint8_t, 16384> buffer{};
  const ssize_t n = ::recv(socket_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
    return;
  }
  if (n > 0 && message_.size() + static_cast<std::size_t>(n) <= wire::kMaxSecretsMessage) {
    message_.insert(message_.end(), buffer.begin(), buffer.begin() + n);
    ::explicit_bzero(buffer.data(), buffer.size());
    return;
  }
  ::explicit_bzero(buffer.data(), buffer.size());
  loop_.unwatch(socket_.get());
  auto secrets = n < 0   ? Result<std::vector<wire::NamedSecret>>(Error::from_errno("secrets: read"))
                 : n > 0 ? Result<std::vector<wire::NamedSecret>>(Error(Errc::kResourceExhausted, "secrets: more than there may be"))
                         : wire::decode_secrets(message_);
  message_ = base::WipedBytes();
  socket_.reset();
  const Received received = std::exchange(received_, nullptr);
  received(std::move(secrets));
}

}  // namespace cellrund::shim
