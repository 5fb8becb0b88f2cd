// A host beyond the router, in a namespace of its own: what a cell may reach, if its policy says so. It hangs on the
// router's uplink, and goes with the test.
#pragma once

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>

#include <string>

#include "tests/support/cell_network.hpp"

namespace cellrund::test {

inline constexpr std::uint32_t kSinkRouter = 0xc6336401;  // 198.51.100.1
inline constexpr std::uint32_t kSink = 0xc6336402;        // 198.51.100.2

inline sockaddr_in socket_address(std::uint32_t address, std::uint16_t port) {
  sockaddr_in out{};
  out.sin_family = AF_INET;
  out.sin_port = htons(port);
  out.sin_addr.s_addr = htonl(address);
  return out;
}

inline bool wait_for(int fd, short events, std::chrono::milliseconds budget) {
  pollfd entry{fd, events, 0};
  return ::poll(&entry, 1, static_cast<int>(budget.count())) == 1;
}

// Bound to any address of the namespace; a TCP one listens.
inline base::UniqueFd serve_in(int netns, int type, std::uint16_t port) {
  auto socket = in_netns(netns, [&]() -> base::Result<base::UniqueFd> {
    base::UniqueFd fd(::socket(AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const sockaddr_in address = socket_address(0, port);
    if (!fd || ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
        (type == SOCK_STREAM && ::listen(fd.get(), 16) != 0)) {
      return base::Error::from_errno("serve");
    }
    return fd;
  });
  REQUIRE_MESSAGE(socket.ok(), (socket.ok() ? "" : socket.error().message()));
  return std::move(*socket);
}

class SinkHost {
 public:
  explicit SinkHost(const Router& router) {
    auto made = on_throwaway_thread([&]() -> base::Result<base::UniqueFd> {
      base::UniqueFd netns = CR_TRY(new_netns_here());
      Rtnl inside = CR_TRY(Rtnl::open());
      const base::UniqueFd outside_ns = CR_TRY(open_netns(router.netns_path()));
      CR_CHECK(enter_netns(outside_ns.get()));
      Rtnl outside = CR_TRY(Rtnl::open());
      CR_CHECK(outside.create_veth({kUplink, {2, 0x43, 0x52, 0, 1, 1}, "sink0", {2, 0x43, 0x52, 0, 1, 2}, netns.get(), kMtu}));
      const std::uint32_t out = CR_TRY(outside.link_index(kUplink));
      const std::uint32_t in = CR_TRY(inside.link_index("sink0"));
      CR_CHECK(outside.add_address(out, kSinkRouter, 24));
      CR_CHECK(inside.add_address(in, kSink, 24));
      CR_CHECK(inside.add_address(in, kSink + 1, 24));
      CR_CHECK(outside.set_up(out));
      CR_CHECK(inside.set_up(in));
      CR_CHECK(inside.add_default_route(in, kSinkRouter));
      return netns;
    });
    REQUIRE_MESSAGE(made.ok(), (made.ok() ? "" : made.error().message()));
    netns_ = std::move(*made);
  }

  [[nodiscard]] int netns() const noexcept { return netns_.get(); }
  [[nodiscard]] base::UniqueFd serve(int type, std::uint16_t port) const { return serve_in(netns_.get(), type, port); }

 private:
  base::UniqueFd netns_;
};

// A socket of the cell that is on its way to the target.
inline base::UniqueFd start_connect(int cell_netns, int type, std::uint32_t address, std::uint16_t port) {
  auto socket = in_netns(cell_netns, [&]() -> base::Result<base::UniqueFd> {
    base::UniqueFd fd(::socket(AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd) {
      return base::Error::from_errno("socket");
    }
    return fd;
  });
  REQUIRE(socket.ok());
  const sockaddr_in to = socket_address(address, port);
  const int result = ::connect(socket->get(), reinterpret_cast<const sockaddr*>(&to), sizeof to);
  REQUIRE((result == 0 || errno == EINPROGRESS));
  return std::move(*socket);
}

// Both ends of a TCP connection from the cell; both invalid when there is none within the budget.
struct Connection {
  base::UniqueFd cell, sink;
  [[nodiscard]] bool open() const noexcept { return sink.valid(); }
};
inline Connection open_connection(int cell_netns, int listener, std::uint32_t address, std::uint16_t port,
                                  std::chrono::milliseconds budget = 5s) {
  Connection out;
  out.cell = start_connect(cell_netns, SOCK_STREAM, address, port);
  if (wait_for(listener, POLLIN, budget)) {
    out.sink.reset(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  }
  return out;
}

// Whether one byte written on one side arrives on the other.
inline bool carries(int from, int to, std::chrono::milliseconds budget) {
  const char byte = 'x';
  char got = 0;
  return ::send(from, &byte, 1, MSG_NOSIGNAL) == 1 && wait_for(to, POLLIN, budget) && ::recv(to, &got, 1, 0) == 1;
}

}  // namespace cellrund::test
