#include "shim/shim_start.hpp"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "base/clock.hpp"
#include "base/file.hpp"
#include "base/process.hpp"
#include "containerd_shim.pb.h"
#include "crypto/digest.hpp"
#include "shim/bundle_files.hpp"
#include "shim/runtime_options.hpp"
#include "shim/shim_run.hpp"

namespace cellrund::shim {
namespace {

using base::Errc;
using base::Error;
using base::Result;
using base::Status;

constexpr std::size_t kMaxStdin = 4U << 20U;

sockaddr_un socket_name(const std::string& path) noexcept {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  std::memcpy(name.sun_path, path.data(), path.size());  // the path has a fixed, fitting length
  return name;
}

bool answers(const std::string& path) {
  const base::UniqueFd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const sockaddr_un name = socket_name(path);
  return probe && ::connect(probe.get(), reinterpret_cast<const sockaddr*>(&name), sizeof(name)) == 0;
}

Result<base::UniqueFd> listen_at(const std::string& path) {
  CR_CHECK(base::make_dirs(path.substr(0, path.find_last_of('/')), 0711));
  if (base::exists(path)) {
    if (answers(path)) {
      return Error(Errc::kAlreadyExists, "listen: a shim of this task is alive already");
    }
    CR_CHECK(base::remove_file(path));  // left by a shim that was killed
  }
  base::UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket) {
    return Error::from_errno("socket");
  }
  // The socket file takes its mode from the descriptor's (unix(7)): nobody else may connect, not even for a moment.
  if (::fchmod(socket.get(), 0600) != 0) {
    return Error::from_errno("fchmod");
  }
  const sockaddr_un name = socket_name(path);
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&name), sizeof(name)) != 0) {
    return Error::from_errno("bind " + path);
  }
  if (::chmod(path.c_str(), 0600) != 0 || ::listen(socket.get(), 64) != 0) {
    return Error::from_errno("listen " + path);
  }
  return socket;
}

std::vector<std::string> serving_environment() {
  std::vector<std::string> env{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"};
  for (const char* name : {"TTRPC_ADDRESS", "CELLRUN_SHIM_CONFIG"}) {
    if (const char* value = ::secure_getenv(name)) {
      env.push_back(std::string(name) + "=" + value);
    }
  }
  return env;
}

Result<base::PidFd> spawn_server(const CommandLine& line, const std::string& config_path, const base::UniqueFd& socket,
                                 const std::string& self) {
  base::SpawnOptions options;
  options.argv = {self,       "-namespace", line.containerd_namespace, "-id",    line.id,
                  "-address", line.address, "-publish-binary",         line.publish_binary};
  if (!config_path.empty()) {
    options.argv.insert(options.argv.end(), {"-config", config_path});
  }
  if (line.debug) {
    options.argv.emplace_back("-debug");
  }
  options.argv.emplace_back("serve");
  options.env = serving_environment();
  // 0, 1 and 2 become /dev/null: containerd 1.6 waits until every copy of its pipes is closed.
  options.fds = {{socket.get(), kListenerFd}};
  options.new_session = true;
  return base::spawn(options);
}

}  // namespace

std::string socket_path_of(std::string_view containerd_address, std::string_view ns, std::string_view id) {
  const std::string joined = std::string(containerd_address) + "/" + std::string(ns) + "/" + std::string(id);
  return "/run/containerd/s/" + crypto::hex(crypto::sha256(base::as_bytes(joined)));
}

Result<std::string> self_path() {
  std::array<char, 4096> self{};
  const ssize_t length = ::readlink("/proc/self/exe", self.data(), self.size());
  if (length <= 0 || static_cast<std::size_t>(length) >= self.size()) {
    return Error::from_errno("readlink /proc/self/exe");
  }
  return std::string(self.data(), static_cast<std::size_t>(length));
}

Status run_start(const CommandLine& line) {
  const std::string input = CR_TRY(base::read_fd(STDIN_FILENO, kMaxStdin).context("read standard input"));
  std::string config_path = line.config;
  if (config_path.empty()) {
    config_path = CR_TRY(config_path_from_start_input(input, line.id, line.containerd_namespace));
  }
  const std::string self = CR_TRY(self_path());
  const std::string path = socket_path_of(line.address, line.containerd_namespace, line.id);
  const base::UniqueFd socket = CR_TRY(listen_at(path));
  Result<base::PidFd> server = spawn_server(line, config_path, socket, self);
  Status status = base::ok();
  if (!server.ok()) {
    status = std::move(server).error();
  } else {
    const std::string address = "unix://" + path;
    const auto record = [&]() -> Status {
      CR_CHECK(write_owned(".", {.shim = server->id(), .socket_path = path, .cgroup_path = {}}));
      CR_CHECK(base::write_file_atomic(kShimPidFile, std::to_string(server->id().pid), 0644));
      CR_CHECK(base::write_file_atomic(kAddressFile, address, 0644));
      return base::write_all(STDOUT_FILENO, base::as_bytes(address));
    };
    status = record();
  }
  if (!status.ok()) {
    if (server.ok()) {
      (void)server->signal(SIGKILL);  // our child; reaped next
      (void)server->reap(base::Deadline::after(std::chrono::seconds(2)));
    }
    (void)base::remove_file(path);  // the failure that matters is the one being returned
  }
  return status;
}

}  // namespace cellrund::shim
