// A program that wants out. As init of a guest (PID 1) it leaves a child behind that, from the first instruction on and
// as root, sends every frame of tests/support/egress_packets.hpp and more through its own network card, and becomes the
// guest's real init. As a job's program it tries the same by sockets, with whatever privileges it was given; further
// targets are its arguments. It never waits for an answer. Static, since an image or a guest holds no libraries.
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstring>
#include <vector>

#include "base/fd.hpp"
#include "tests/support/egress_packets.hpp"

using namespace cellrund;
using namespace cellrund::test;

namespace {

constexpr std::uint32_t kSink = 0xc6336402;  // 198.51.100.2
constexpr std::uint16_t kOpen = 8080;        // the one port of it that the test's policy opens, by UDP

void pause_ms(int ms) {
  (void)::poll(nullptr, 0, ms);
}

base::Bytes arp(std::uint16_t operation, std::uint32_t sender, std::uint32_t target) {
  base::Bytes frame =
      with(cut(packet(), 42), 12, {0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, static_cast<std::uint8_t>(operation)});
  frame = with(frame, 0, {255, 255, 255, 255, 255, 255});
  std::copy(netpolicy::kCellMac.begin(), netpolicy::kCellMac.end(), frame.begin() + 22);
  for (unsigned i = 0; i < 4; ++i) {
    frame[28 + i] = static_cast<std::uint8_t>(sender >> (24U - 8U * i));
    frame[38 + i] = static_cast<std::uint8_t>(target >> (24U - 8U * i));
  }
  return frame;
}

// From a link-local address, with `next` as next header: 58 and a type for ICMPv6.
base::Bytes ipv6(const std::array<std::uint8_t, 16>& to, std::uint8_t next, std::uint8_t type) {
  base::Bytes frame = with(cut(packet(), 14), 12, {0x86, 0xdd});
  if (to[0] == 0xff) {
    frame = with(std::move(frame), 0, {0x33, 0x33, to[12], to[13], to[14], to[15]});
  }
  const auto append = [&frame](const auto& bytes) { frame.insert(frame.end(), bytes.begin(), bytes.end()); };
  append(std::array<std::uint8_t, 8>{0x60, 0, 0, 0, 0, 8, next, 255});
  append(std::array<std::uint8_t, 16>{0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0x43, 0x52, 0xff, 0xfe, 0, 0, 2});
  append(to);
  append(std::array<std::uint8_t, 8>{type});
  return frame;
}

std::vector<base::Bytes> frames() {
  std::vector<base::Bytes> out;
  for (PacketRow& row : packet_table()) {
    out.push_back(std::move(row.frame));
  }
  for (const std::uint16_t port :
       {std::uint16_t{22}, std::uint16_t{53}, std::uint16_t{80}, std::uint16_t{443}, std::uint16_t{853}}) {
    for (const std::uint32_t address : {kSink, kSink - 1, kCellAddress - 1, kCellAddress + 2, 0xa9fea9feU}) {
      out.push_back(packet(address, port, kTcp));
      out.push_back(packet(address, port, kUdp));
    }
  }
  for (std::uint32_t host = 0; host < 16; ++host) {
    out.push_back(arp(1, kCellAddress, kCellAddress - 1 + host));  // scan
    out.push_back(arp(2, kCellAddress - 1 + host, kSink));         // spoofed answer
  }
  out.push_back(arp(1, kCellAddress, kCellAddress));  // gratuitous
  using Address = std::array<std::uint8_t, 16>;
  for (const Address& to : {Address{0x26, 0x06, 0x47}, Address{0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1},
                            Address{0xfd, 0, 0x0e, 0xc2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0x54},
                            Address{0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, 8, 8, 8, 8}}) {
    out.push_back(ipv6(to, 17, 0));
    out.push_back(ipv6(to, 6, 0));
    for (const std::uint8_t type : {std::uint8_t{128}, std::uint8_t{133}, std::uint8_t{134}, std::uint8_t{135}}) {
      out.push_back(ipv6(to, 58, type));
    }
  }
  out.push_back(packet(kSink, kOpen, kUdp));  // what may arrive
  return out;
}

// For as long as the guest lives.
[[noreturn]] void flood_by_card() {
  const std::vector<base::Bytes> all = frames();
  const base::UniqueFd control(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const base::UniqueFd card(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
  while (true) {
    ifreq request{};
    (void)std::strncpy(request.ifr_name, "eth0", IFNAMSIZ - 1);
    if (::ioctl(control.get(), SIOCGIFFLAGS, &request) != 0) {
      pause_ms(1);  // its driver is not loaded yet
      continue;
    }
    request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
    (void)::ioctl(control.get(), SIOCSIFFLAGS, &request);
    sockaddr_ll to{};
    to.sll_family = AF_PACKET;
    to.sll_ifindex = static_cast<int>(::if_nametoindex("eth0"));
    for (const base::Bytes& frame : all) {
      (void)::sendto(card.get(), frame.data(), frame.size(), MSG_DONTWAIT, reinterpret_cast<const sockaddr*>(&to),
                     sizeof to);
    }
    pause_ms(2);
  }
}

class Sockets {
 public:
  void send(int type, int protocol, std::uint32_t address, std::uint16_t port, std::size_t size = 16) {
    const base::UniqueFd fd(::socket(AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol));
    if (!fd) {
      ++refused_;
      return;
    }
    const int yes = 1;
    (void)::setsockopt(fd.get(), SOL_SOCKET, SO_BROADCAST, &yes, sizeof yes);
    const sockaddr_in to = address_of(address, port);
    if (type == SOCK_STREAM) {
      count(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0 || errno == EINPROGRESS);
      return;
    }
    const std::string data(size, '\x08');  // to an ICMP socket: an echo request
    count(::sendto(fd.get(), data.data(), data.size(), 0, reinterpret_cast<const sockaddr*>(&to), sizeof to) >= 0);
  }
  // An IPv4 packet of our own making.
  void send_raw(const base::Bytes& frame) {
    const base::UniqueFd fd(::socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_RAW));
    if (!fd || frame.size() < 34) {
      ++refused_;
      return;
    }
    const sockaddr_in to =
        address_of(static_cast<std::uint32_t>(frame[30]) << 24U | static_cast<std::uint32_t>(frame[31]) << 16U |
                       static_cast<std::uint32_t>(frame[32]) << 8U | frame[33],
                   0);
    count(::sendto(fd.get(), frame.data() + 14, frame.size() - 14, 0, reinterpret_cast<const sockaddr*>(&to),
                   sizeof to) >= 0);
  }
  // Families that a cell is not to have at all.
  void open(int family, int type) {
    const base::UniqueFd fd(::socket(family, type | SOCK_CLOEXEC, 0));
    count(fd.valid());
    if (fd.valid()) {
      std::printf("family %d opens\n", family);
    }
  }
  [[nodiscard]] std::string summary() const {
    return "sent " + std::to_string(sent_) + ", refused by the cell's own kernel " + std::to_string(refused_);
  }

 private:
  static sockaddr_in address_of(std::uint32_t address, std::uint16_t port) {
    sockaddr_in out{};
    out.sin_family = AF_INET;
    out.sin_port = htons(port);
    out.sin_addr.s_addr = htonl(address);
    return out;
  }
  void count(bool sent) { ++(sent ? sent_ : refused_); }
  unsigned sent_ = 0, refused_ = 0;
};

std::string flood_by_sockets(const std::vector<std::uint32_t>& more) {
  Sockets sockets;
  std::vector<std::uint32_t> targets{kSink,      kSink - 1,  kOutside,   0x08080808, kCellAddress - 1, kCellAddress + 2,
                                     0xa9fea9fe, 0x646464c8, 0xa9feaa02, 0x0a000001, 0xc0a80001,       0xffffffff,
                                     0xe00000fb, 0x7f000001};
  targets.insert(targets.end(), more.begin(), more.end());
  for (const std::uint32_t address : targets) {
    for (const std::uint16_t port : {std::uint16_t{22}, std::uint16_t{53}, std::uint16_t{80}, std::uint16_t{443},
                                     std::uint16_t{853}, std::uint16_t{5353}}) {
      sockets.send(SOCK_DGRAM, 0, address, port);
      sockets.send(SOCK_STREAM, 0, address, port);
    }
    sockets.send(SOCK_DGRAM, 0, address, 9, 5000);  // fragments
    sockets.send(SOCK_DGRAM, IPPROTO_ICMP, address, 0);
    for (const int protocol : {1, 4, 41, 47, 50, 132, 255}) {
      sockets.send(SOCK_RAW, protocol, address, 0);
    }
  }
  for (const PacketRow& row : packet_table()) {
    sockets.send_raw(row.frame);
  }
  for (const int family : {AF_PACKET, AF_VSOCK}) {
    sockets.open(family, SOCK_DGRAM);
  }
  sockets.send(SOCK_DGRAM, 0, kSink, kOpen);  // what may arrive
  return sockets.summary();
}

}  // namespace

int main(int argc, char** argv) {
  if (::getpid() == 1 && argc == 1 && ::access("/cell-init", X_OK) == 0) {
    if (::fork() == 0) {
      flood_by_card();
    }
    (void)::execv("/cell-init", argv);
    return 1;
  }
  std::vector<std::uint32_t> more;
  for (int i = 1; i < argc; ++i) {
    in_addr address{};
    if (::inet_aton(argv[i], &address) != 0) {
      more.push_back(ntohl(address.s_addr));
    }
  }
  std::puts(flood_by_sockets(more).c_str());
  return 0;
}
