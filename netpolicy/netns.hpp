// Network namespaces: made, entered and held by descriptor. A thread that has entered one never serves anything else:
// all of this happens on threads that end with their one function (setns(2), namespaces(7)).
#pragma once

#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <type_traits>
#include <utility>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace cellrund::netpolicy {

// Runs `fn` (returning a Result) on a thread of its own and waits for it. The caller's thread stays as it is.
template <typename Fn>
std::invoke_result_t<Fn> on_throwaway_thread(Fn fn) {
  std::optional<std::invoke_result_t<Fn>> result;
  try {
    std::jthread thread([&] { result.emplace(fn()); });
  } catch (const std::system_error& e) {  // pthread_create: EAGAIN
    return base::Error::from_errno("start a thread", e.code().value());
  }
  return std::move(*result);
}

// Moves the calling thread into the namespace. Only for throw-away threads.
base::Status enter_netns(int netns_fd);

// The same for one function: `fn` runs inside the namespace.
template <typename Fn>
std::invoke_result_t<Fn> in_netns(int netns_fd, Fn fn) {
  return on_throwaway_thread([&]() -> std::invoke_result_t<Fn> {
    CR_CHECK(enter_netns(netns_fd));
    return fn();
  });
}

// Opens a bind-mounted network namespace; kNotFound when there is no such file, kFailedPrecondition when the file is
// anything else (a leftover without its mount, for one).
base::Result<base::UniqueFd> open_netns(const std::string& path);

// Gives the calling (throw-away) thread a new namespace.
base::Result<base::UniqueFd> new_netns_here();

// SO_NETNS_COOKIE of the calling thread's namespace. Inode numbers of namespaces are reused as soon as one is gone; this
// is not, in one boot.
base::Result<std::uint64_t> netns_cookie_here();

// Bind-mounts the namespace at `path`, which must not exist (kAlreadyExists).
base::Status bind_netns(int netns_fd, const std::string& path);

// Unmounts and unlinks `path`; a missing one is success, and so is one without its mount. The namespace itself goes
// when its last process, descriptor and mount are gone, some milliseconds later.
base::Status remove_netns(const std::string& path);

// Reads /proc/sys/net/<name> of the calling thread's namespace, without the newline.
base::Result<std::string> net_sysctl(const std::string& name);

// Writes /proc/sys/net/<name> of the calling thread's namespace. A missing IPv6 stack (no such file) is success for
// names under ipv6/.
base::Status set_net_sysctl(const std::string& name, const std::string& value);

}  // namespace cellrund::netpolicy
