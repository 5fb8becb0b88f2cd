// egress-sink LINK: the far end of the router's uplink. Waits for LINK to appear in its namespace and counts everything
// that arrives there, until SIGTERM; then prints a line for each kind: how often, and what it was.
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/socket.h>

#include <array>
#include <cstdio>
#include <map>
#include <string>

#include "base/fd.hpp"

namespace {

using Frame = std::array<unsigned char, 2048>;

std::string address(const unsigned char* at) {
  std::array<char, INET_ADDRSTRLEN> text{};
  return ::inet_ntop(AF_INET, at, text.data(), text.size()) == nullptr ? "?" : text.data();
}

// Without the source: the router may rewrite it.
std::string kind_of(const Frame& frame, std::size_t size) {
  const unsigned ethertype = frame[12] * 256U + frame[13];
  if (ethertype == 0x0806 && size >= 42) {
    return "arp " + address(&frame[38]);
  }
  if (ethertype != 0x0800 || size < 34) {
    return "ethertype " + std::to_string(ethertype);
  }
  std::string out = "ipv4 " + address(&frame[30]) + " protocol " + std::to_string(frame[23]);
  if ((frame[23] == 6 || frame[23] == 17) && size >= 38) {
    out += " port " + std::to_string(frame[36] * 256U + frame[37]);
  }
  return out + (frame[14] == 0x45 ? "" : " options") + ((frame[20] & 0x3fU) != 0 || frame[21] != 0 ? " fragment" : "");
}

}  // namespace

int main(int argc, char** argv) {
  using cellrund::base::UniqueFd;
  if (argc != 2) {
    std::fputs("usage: egress-sink LINK\n", stderr);
    return 64;
  }
  sigset_t ends;
  (void)::sigemptyset(&ends);
  (void)::sigaddset(&ends, SIGTERM);
  (void)::sigprocmask(SIG_BLOCK, &ends, nullptr);
  const UniqueFd signals(::signalfd(-1, &ends, SFD_CLOEXEC));
  const UniqueFd socket(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!signals.valid() || !socket.valid()) {
    std::perror("egress-sink");
    return 1;
  }
  std::map<std::string, unsigned long> arrived;
  bool bound = false;
  std::array<pollfd, 2> polls{{{signals.get(), POLLIN, 0}, {socket.get(), POLLIN, 0}}};
  while (polls[0].revents == 0) {
    (void)::poll(polls.data(), polls.size(), bound ? -1 : 20);
    if (!bound) {
      sockaddr_ll at{};
      at.sll_family = AF_PACKET;
      at.sll_protocol = htons(0x0003);  // every one
      at.sll_ifindex = static_cast<int>(::if_nametoindex(argv[1]));
      bound = at.sll_ifindex != 0 && ::bind(socket.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at) == 0;
      if (bound) {
        std::puts("listening");
        (void)std::fflush(stdout);
      }
      continue;
    }
    Frame frame{};
    sockaddr_ll from{};
    socklen_t length = sizeof from;
    ssize_t size = 0;
    while ((size = ::recvfrom(socket.get(), frame.data(), frame.size(), 0, reinterpret_cast<sockaddr*>(&from),
                              &length)) > 0) {
      if (from.sll_pkttype != PACKET_OUTGOING) {
        ++arrived[kind_of(frame, static_cast<std::size_t>(size))];
      }
    }
  }
  for (const auto& [kind, count] : arrived) {
    std::printf("%lu %s\n", count, kind.c_str());
  }
  return 0;
}
