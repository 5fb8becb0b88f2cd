#include "tools/bench/flood/network.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <thread>

#include "base/file.hpp"
#include "netpolicy/names.hpp"
#include "netpolicy/netns.hpp"
#include "netpolicy/networked_cell.hpp"
#include "netpolicy/rtnl.hpp"
#include "tools/bench/flood/counters.hpp"

namespace cellrund::bench {
namespace {

using namespace netpolicy;
using base::Error;

constexpr std::uint32_t kSinkRouter = 0xc6336401;  // 198.51.100.1
constexpr const char* kSinkInterface = "sink0";
constexpr auto kPatience = std::chrono::seconds(60);

void tell(const std::vector<std::string>& failures) {
  for (const std::string& failure : failures) {
    std::fprintf(stderr, "bench: %s\n", failure.c_str());
  }
}

sockaddr_in sink_address() {
  sockaddr_in out{};
  out.sin_family = AF_INET;
  out.sin_port = htons(kSinkPort);
  out.sin_addr.s_addr = htonl(kSink);
  return out;
}

base::Result<base::UniqueFd> listen_in(int netns) {
  return in_netns(netns, []() -> base::Result<base::UniqueFd> {
    base::UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const sockaddr_in at = sink_address();
    if (!fd || ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at) != 0 || ::listen(fd.get(), 1) != 0) {
      return Error::from_errno("listen");
    }
    return fd;
  });
}

base::Result<base::UniqueFd> connect_from(int netns) {
  return in_netns(netns, []() -> base::Result<base::UniqueFd> {
    base::UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const sockaddr_in to = sink_address();
    if (!fd || ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0) {
      return Error::from_errno("connect");
    }
    return fd;
  });
}

}  // namespace

Place::Place(std::string folder) : folder_(std::move(folder)) {
  std::array<char, 9> text{};
  (void)std::snprintf(text.data(), text.size(), "%08x", static_cast<unsigned>(::getpid()));
  tag_.value = text.data();
}

Place::~Place() {
  for (const std::uint32_t slot : {0U, 1U}) {
    tell(disconnect(cell(slot), folder_));
  }
  tell(Router::destroy(folder_, tag_));
  if (const auto removed = base::remove_dir(folder_); !removed.ok()) {
    tell({removed.error().message()});
  }
}

base::Result<Router> Place::open() const {
  CR_CHECK(base::make_dirs(folder_, 0700));
  return Router::open({.run_dir = folder_, .node = tag_, .attach = Attach::kTcx});
}

model::CellName Place::cell(std::uint32_t slot) const {
  return {tag_, "0199c1f2-7b1e-7c3a-9d2e-00000000000" + std::to_string(slot), slot};
}

base::Result<base::UniqueFd> make_sink(const Router& router) {
  return on_throwaway_thread([&]() -> base::Result<base::UniqueFd> {
    base::UniqueFd netns = CR_TRY(new_netns_here());
    Rtnl inside = CR_TRY(Rtnl::open());
    const base::UniqueFd outside_ns = CR_TRY(open_netns(router.netns_path()));
    CR_CHECK(enter_netns(outside_ns.get()));
    Rtnl outside = CR_TRY(Rtnl::open());
    CR_CHECK(outside.create_veth(
        {kUplink, {2, 0x43, 0x52, 0, 1, 1}, kSinkInterface, {2, 0x43, 0x52, 0, 1, 2}, netns.get(), kMtu}));
    const std::uint32_t out = CR_TRY(outside.link_index(kUplink));
    const std::uint32_t in = CR_TRY(inside.link_index(kSinkInterface));
    CR_CHECK(outside.add_address(out, kSinkRouter, 24));
    CR_CHECK(inside.add_address(in, kSink, 24));
    CR_CHECK(outside.set_up(out));
    CR_CHECK(inside.set_up(in));
    CR_CHECK(inside.add_default_route(in, kSinkRouter));
    CR_CHECK(outside.add_default_route(out, kSink));
    return netns;
  });
}

base::Result<std::uint64_t> arrived_at(int sink_netns) {
  return in_netns(sink_netns, [] { return link_counter(kSinkInterface, LinkCounter::kReceived); });
}

base::Result<Connection> connect_to_sink(int cell_netns, int sink_netns) {
  const base::UniqueFd listener = CR_TRY(listen_in(sink_netns));
  Connection out{CR_TRY(connect_from(cell_netns)), {}};
  out.to.reset(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  return out.to ? base::Result<Connection>(std::move(out)) : Error::from_errno("accept");
}

base::Status transfer(const Connection& connection, std::uint64_t bytes, Sample& sample) {
  const int from = connection.from.get();
  const int to = connection.to.get();
  const std::string block(64UL * 1024, 'b');
  std::string buffer(256UL * 1024, '\0');
  sample.start_ns = now_ns();
  const std::jthread writer([&] {
    for (std::uint64_t left = bytes; left > 0;) {
      const ssize_t n = ::send(from, block.data(), std::min<std::uint64_t>(left, block.size()), MSG_NOSIGNAL);
      if (n <= 0) {
        return;
      }
      left -= static_cast<std::uint64_t>(n);
    }
  });
  for (std::uint64_t got = 0; got < bytes;) {
    pollfd entry{to, POLLIN, 0};
    const ssize_t n = ::poll(&entry, 1, static_cast<int>(std::chrono::milliseconds(kPatience).count())) == 1
                          ? ::recv(to, buffer.data(), buffer.size(), 0)
                          : 0;
    if (n <= 0) {
      (void)::shutdown(from, SHUT_RDWR);
      return Error(base::Errc::kDeadlineExceeded,
                   "the neighbour's transfer stopped after " + std::to_string(got) + " bytes");
    }
    got += static_cast<std::uint64_t>(n);
    sample.first_byte_ns = sample.first_byte_ns == 0 ? now_ns() : sample.first_byte_ns;
  }
  sample.end_ns = now_ns();
  return base::ok();
}

}  // namespace cellrund::bench
