#include "daemon/listen.hpp"

#include <grp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

namespace cellrund::daemon {
namespace {

using base::Errc;
using base::Error;

constexpr int kBacklog = 128;

base::Result<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return Error(Errc::kInvalidArgument, "not a usable socket path");
  }
  std::memcpy(address.sun_path, path.c_str(), path.size());
  return address;
}

// Removes what a dead daemon left; refuses everything else.
base::Status make_room(const std::string& path, const sockaddr_un& address) {
  struct stat st {};
  if (::lstat(path.c_str(), &st) != 0) {
    return errno == ENOENT ? base::ok() : base::Status(Error::from_errno("lstat"));
  }
  if (!S_ISSOCK(st.st_mode)) {
    return Error(Errc::kAlreadyExists, "something that is no socket has this name");
  }
  const base::UniqueFd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!probe) {
    return Error::from_errno("socket");
  }
  if (::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0 || errno == EAGAIN) {
    return Error(Errc::kAlreadyExists, "another process serves this socket");
  }
  if (errno != ECONNREFUSED) {
    return Error::from_errno("connect");
  }
  return base::remove_file(path);
}

}  // namespace

base::Result<Listener> Listener::open(const std::string& path, std::optional<gid_t> group) {
  const std::string where = "listen at " + path;
  const sockaddr_un address = CR_TRY(address_of(path).context(where));
  CR_CHECK(make_room(path, address).context(where));
  base::UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) {
    return Error::from_errno(where + ": socket");
  }
  // Before bind(2): the new inode takes the mode of the socket's own one (net/unix/af_unix.c, unix_bind_bsd), so there
  // is no moment with a wider mode, and no process-wide umask is touched.
  if (::fchmod(fd.get(), 0600) != 0) {
    return Error::from_errno(where + ": fchmod");
  }
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return Error::from_errno(where + ": bind");
  }
  struct stat st {};
  if (::lstat(path.c_str(), &st) != 0) {
    return Error::from_errno(where + ": lstat");
  }
  Listener listener(std::move(fd), path, {st.st_dev, st.st_ino});
  if (group && (::lchown(path.c_str(), static_cast<uid_t>(-1), *group) != 0 || ::chmod(path.c_str(), 0660) != 0)) {
    return Error::from_errno(where + ": give it to its group");
  }
  if (::listen(listener.fd(), kBacklog) != 0) {
    return Error::from_errno(where + ": listen");
  }
  return listener;
}

Listener::~Listener() {
  if (!fd_) {
    return;
  }
  struct stat st {};
  if (::lstat(path_.c_str(), &st) == 0 && base::FileId{st.st_dev, st.st_ino} == id_) {
    (void)::unlink(path_.c_str());  // a leftover is stale and replaced by the next start
  }
}

std::optional<gid_t> group_id(const std::string& name) {
  std::vector<char> buffer(16384);
  group entry{};
  group* found = nullptr;
  int result = 0;
  while ((result = ::getgrnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found)) == ERANGE &&
         buffer.size() < (std::size_t{1} << 20U)) {
    buffer.resize(buffer.size() * 2);
  }
  if (result != 0 || found == nullptr) {
    return std::nullopt;
  }
  return found->gr_gid;
}

}  // namespace cellrund::daemon
