// What BPF_PROG_TEST_RUN cannot carry, on the real path: frames of a hostile guest out of a tap, as the microvm lane
// wires it, and out of a packet socket in the cell, through the filter, to a sink behind the router's uplink that
// listens to everything. Whatever is sent is counted under the reason it deserves, and only what the policy allows
// arrives. Needs root.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>
#include <linux/if_ether.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cstdio>
#include <map>

#include "shim/tap.hpp"
#include "tests/support/egress_packets.hpp"
#include "tests/support/sink_host.hpp"

using namespace cellrund;
using namespace cellrund::netpolicy;
using namespace cellrund::test;

namespace {

constexpr auto kDenied = 300ms;  // how long something that must not arrive is waited for

// struct virtio_net_hdr of linux/virtio_net.h, which is no C++
struct Offload {
  std::uint8_t flags = 0, gso_type = 0;
  std::uint16_t hdr_len = 0, gso_size = 0, csum_start = 0, csum_offset = 0;
};
static_assert(sizeof(Offload) == 10);
constexpr std::uint8_t kNeedsChecksum = 1, kGsoTcp4 = 1, kGsoUdp = 3;

// One way in which a cell sends raw frames.
class Way {
 public:
  Way() = default;
  Way(const Way&) = delete;
  Way& operator=(const Way&) = delete;
  Way(Way&&) = delete;
  Way& operator=(Way&&) = delete;
  virtual ~Way() = default;
  virtual void send(const base::Bytes& frame, const Offload& offload) = 0;
  // packet(7) takes no offload behind a tag.
  [[nodiscard]] virtual bool offloads_behind_tags() const { return false; }
  void send(const base::Bytes& frame) { send(frame, Offload{}); }

 protected:
  static base::Bytes message(const base::Bytes& frame, const Offload& offload) {
    base::Bytes out(sizeof offload);
    std::memcpy(out.data(), &offload, sizeof offload);
    out.insert(out.end(), frame.begin(), frame.end());
    return out;
  }
};

class Tap final : public Way {
 public:
  explicit Tap(int netns) {
    auto tap = shim::make_tap(netns);
    REQUIRE_MESSAGE(tap.ok(), (tap.ok() ? "" : tap.error().message()));
    tap_ = std::move(*tap);
  }
  void send(const base::Bytes& frame, const Offload& offload) override {
    const base::Bytes bytes = message(frame, offload);
    REQUIRE(::write(tap_.get(), bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()));
  }
  [[nodiscard]] bool offloads_behind_tags() const override { return true; }

 private:
  base::UniqueFd tap_;
};

class PacketSocket final : public Way {
 public:
  explicit PacketSocket(int netns) {
    auto socket = in_netns(netns, [&]() -> base::Result<base::UniqueFd> {
      Rtnl rtnl = CR_TRY(Rtnl::open());
      ifindex_ = CR_TRY(rtnl.link_index(kCellInterface));
      base::UniqueFd fd = CR_TRY(open_packet_socket());
      const int on = 1;
      if (::setsockopt(fd.get(), SOL_PACKET, PACKET_VNET_HDR, &on, sizeof on) != 0) {
        return base::Error::from_errno("PACKET_VNET_HDR");
      }
      return fd;
    });
    REQUIRE_MESSAGE(socket.ok(), (socket.ok() ? "" : socket.error().message()));
    socket_ = std::move(*socket);
  }
  void send(const base::Bytes& frame, const Offload& offload) override {
    const base::Bytes bytes = message(frame, offload);
    sockaddr_ll to{};
    to.sll_family = AF_PACKET;
    to.sll_protocol = htons(ETH_P_IP);
    to.sll_ifindex = static_cast<int>(ifindex_);
    REQUIRE(::sendto(socket_.get(), bytes.data(), bytes.size(), 0, reinterpret_cast<const sockaddr*>(&to), sizeof to) ==
            static_cast<ssize_t>(bytes.size()));
  }

 private:
  std::uint32_t ifindex_ = 0;
  base::UniqueFd socket_;
};

// Everything that comes in at the sink, but the router's own ARP.
class Wire {
 public:
  explicit Wire(const SinkHost& sink) {
    auto socket = in_netns(sink.netns(), []() -> base::Result<base::UniqueFd> {
      Rtnl rtnl = CR_TRY(Rtnl::open());
      base::UniqueFd fd = CR_TRY(open_packet_socket());
      sockaddr_ll all{};
      all.sll_family = AF_PACKET;
      all.sll_protocol = htons(ETH_P_ALL);
      all.sll_ifindex = static_cast<int>(CR_TRY(rtnl.link_index("sink0")));
      if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&all), sizeof all) != 0) {
        return base::Error::from_errno("bind");
      }
      return fd;
    });
    REQUIRE_MESSAGE(socket.ok(), (socket.ok() ? "" : socket.error().message()));
    socket_ = std::move(*socket);
  }

  // Of IPv4 packets: "protocol address:port", and how many bytes of payload they carried. Of others: their EtherType.
  std::map<std::string, std::size_t> seen(std::chrono::milliseconds quiet) {
    std::map<std::string, std::size_t> out;
    std::vector<std::uint8_t> frame(1U << 17U);
    while (wait_for(socket_.get(), POLLIN, quiet)) {
      sockaddr_ll from{};
      socklen_t size = sizeof from;
      const ssize_t n =
          ::recvfrom(socket_.get(), frame.data(), frame.size(), 0, reinterpret_cast<sockaddr*>(&from), &size);
      if (n < ETH_HLEN || from.sll_pkttype == PACKET_OUTGOING || ntohs(from.sll_protocol) == ETH_P_ARP) {
        continue;
      }
      if (ntohs(from.sll_protocol) != ETH_P_IP || n < 38) {
        ++out["ethertype " + std::to_string(ntohs(from.sll_protocol))];
        continue;
      }
      const std::uint32_t address = static_cast<std::uint32_t>(frame[30]) << 24U |
                                    static_cast<std::uint32_t>(frame[31]) << 16U |
                                    static_cast<std::uint32_t>(frame[32]) << 8U | frame[33];
      const std::size_t headers = frame[23] == kTcp ? 54 : 42;
      out[std::to_string(frame[23]) + " " + format_ipv4(address) + ":" + std::to_string(frame[36] << 8 | frame[37])] +=
          std::max(static_cast<std::size_t>(n), headers) - headers;
    }
    return out;
  }

 private:
  base::UniqueFd socket_;
};

NetworkedCell connect_allowing(const TestNode& node, const Router& router) {
  model::EgressPolicy egress{{rule("198.51.100.2/32", {443}), rule("198.51.100.2/32", {53}, model::Transport::kUdp)},
                             {}};
  auto relaxations = admit::EgressGrants::from(std::vector<std::string>{"public"}).relaxations_for(egress);
  Recorder journal;
  auto cell = router.connect(
      node.cell(0), journal,
      {.egress = std::move(egress), .relaxations = std::move(relaxations), .expect_blocked = {}, .on_alarm = {}});
  REQUIRE_MESSAGE(cell.ok(), (cell.ok() ? "" : cell.error().message()));
  return std::move(*cell);
}

base::Bytes query() {
  return packet(kSink, 53, kUdp);
}

// An allowed query that somebody else would deliver: each breaks one thing, and none may arrive.
std::vector<PacketRow> disguised() {
  const auto type = [](std::uint8_t high, std::uint8_t low) { return with(query(), 12, {high, low}); };
  const auto behind = [&](std::uint8_t high, std::uint8_t low,
                          std::vector<std::uint8_t> shim) {  // a header before the IPv4 one
    base::Bytes frame = type(high, low);
    frame.insert(frame.begin() + 14, shim.begin(), shim.end());
    return frame;
  };
  const auto arp = [](std::uint8_t operation, std::vector<std::uint8_t> sender_ip,
                      std::vector<std::uint8_t> target_ip) {
    base::Bytes frame(60, 0);
    frame = with(frame, 0,
                 {255, 255, 255, 255, 255, 255, 0x02, 0x43, 0x52, 0, 0, 2, 0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, operation});
    frame = with(frame, 22, {0x02, 0x43, 0x52, 0, 0, 2});
    frame = with(frame, 28, std::move(sender_ip));
    return with(frame, 38, std::move(target_ip));
  };
  return {
      {"priority tag, VID 0", tagged(query(), {0x81, 0x00, 0x00, 0x00}), CR_VLAN},
      {"priority 7, VID 0", tagged(query(), {0x81, 0x00, 0xe0, 0x00}), CR_VLAN},
      {"VID 7", tagged(query(), {0x81, 0x00, 0x00, 0x07}), CR_VLAN},
      {"VID 4095", tagged(query(), {0x81, 0x00, 0x0f, 0xff}), CR_VLAN},
      {"service tag, VID 0", tagged(query(), {0x88, 0xa8, 0x00, 0x00}), CR_VLAN},
      {"88a8 and 8100, 0/0", tagged(query(), {0x88, 0xa8, 0, 0, 0x81, 0x00, 0, 0}), CR_VLAN},
      {"8100 and 8100, 0/0", tagged(query(), {0x81, 0x00, 0, 0, 0x81, 0x00, 0, 0}), CR_VLAN},
      {"8100 and 88a8, 0/0", tagged(query(), {0x81, 0x00, 0, 0, 0x88, 0xa8, 0, 0}), CR_VLAN},
      {"three tags", tagged(query(), {0x88, 0xa8, 0, 0, 0x81, 0x00, 0, 0, 0x81, 0x00, 0, 0}), CR_VLAN},
      {"first fragment with the ports in it", with(query(), 20, {0x20, 0x00}), CR_FRAGMENT},
      {"fragment that begins behind the ports", with(query(), 20, {0x00, 0x01}), CR_FRAGMENT},
      {"last fragment", with(query(), 20, {0x00, 0xb9}), CR_FRAGMENT},
      {"LLC and SNAP", behind(0x00, 0x24, {0xaa, 0xaa, 0x03, 0, 0, 0, 0x08, 0x00}), CR_ETHERTYPE},
      {"MPLS", behind(0x88, 0x47, {0, 0, 0x11, 64}), CR_ETHERTYPE},
      {"PPPoE session", behind(0x88, 0x64, {0x11, 0, 0, 1, 0, 30, 0x00, 0x21}), CR_ETHERTYPE},
      {"MACsec", behind(0x88, 0xe5, {0x20, 0, 0, 0, 0, 1}), CR_ETHERTYPE},
      {"loopback test", type(0x90, 0x00), CR_ETHERTYPE},
      {"a type of nobody", type(0xff, 0xff), CR_ETHERTYPE},
      {"IPv6 by its type alone", type(0x86, 0xdd), CR_IPV6},
      {"gratuitous ARP for the gateway", arp(2, {100, 64, 0, 0}, {100, 64, 0, 0}), CR_ARP},
      {"ARP reply for a neighbour", arp(2, {100, 64, 0, 3}, {100, 64, 0, 0}), CR_ARP},
      {"ARP reply for the sink", arp(2, {198, 51, 100, 2}, {198, 51, 100, 1}), CR_ARP},
      {"ARP request", arp(1, {100, 64, 0, 1}, {100, 64, 0, 0}), CR_ARP},
      {"another's MAC", with(query(), 6, {0x02, 0, 0, 0, 0, 9}), CR_SOURCE_MAC},
      {"the gateway's MAC", with(query(), 6, {0x02, 0x43, 0x52, 0, 0, 1}), CR_SOURCE_MAC},
      {"to everybody", with(query(), 0, {255, 255, 255, 255, 255, 255}), CR_GROUP_MAC},
      {"a neighbour's address", with(query(), 26, {100, 64, 0, 3}), CR_SOURCE_ADDRESS},
      {"the router's uplink address", with(query(), 26, {198, 51, 100, 1}), CR_SOURCE_ADDRESS},
      {"loose source route", with(behind(0x08, 0x00, {}), 14, {0x46}), CR_IP_OPTIONS},
  };
}

// The same packet with so much behind its headers, and an IPv4 header that says so.
base::Bytes lengthened(base::Bytes frame, std::size_t size) {
  frame.resize(size, 'x');
  frame = with(frame, 16, {static_cast<std::uint8_t>((size - 14) >> 8U), static_cast<std::uint8_t>(size - 14), 0, 0});
  frame = with(frame, 24, {0, 0});
  std::uint32_t sum = 0;
  for (std::size_t i = 14; i < 34; i += 2) {
    sum += static_cast<std::uint32_t>(frame[i]) << 8U | frame[i + 1];
  }
  sum = (sum & 0xffffU) + (sum >> 16U);
  sum = ~(sum + (sum >> 16U));
  return with(frame, 24, {static_cast<std::uint8_t>(sum >> 8U), static_cast<std::uint8_t>(sum)});
}

struct Network {
  explicit Network(Attach attach)
      : router(node.open(attach)), sink(router), wire(sink), cell(connect_allowing(node, router)) {}
  [[nodiscard]] model::EgressFacts after(std::uint64_t counted) const {
    return settled(node, 0, cell.facts().counted + counted);
  }
  TestNode node;
  Router router;
  SinkHost sink;
  Wire wire;
  NetworkedCell cell;
};

using Make = std::unique_ptr<Way> (*)(int netns);
constexpr std::array<std::pair<const char*, Make>, 2> kWays{{
    {"tap", [](int netns) -> std::unique_ptr<Way> { return std::make_unique<Tap>(netns); }},
    {"packet socket", [](int netns) -> std::unique_ptr<Way> { return std::make_unique<PacketSocket>(netns); }},
}};

template <typename Fn>
void on_every_way(Fn fn) {
  for (const Attach attach : {Attach::kTcx, Attach::kClsact}) {
    for (const auto& [name, make] : kWays) {
      CAPTURE(to_string(attach));
      CAPTURE(name);
      Network network(attach);
      const std::unique_ptr<Way> way = make(network.cell.netns_fd());
      fn(network, *way);
    }
  }
}

}  // namespace

TEST_CASE("no disguise of a frame arrives, and each is counted under its own reason") {
  on_every_way([](Network& network, Way& way) {
    std::map<std::string, std::uint64_t> expected;
    for (const auto& [reason, packets] : network.cell.facts().counters) {
      expected[reason] = packets;
    }
    std::uint64_t sent = 0;
    std::vector<PacketRow> rows = packet_table();
    for (PacketRow& row : disguised()) {
      rows.push_back(std::move(row));
    }
    for (const PacketRow& row : rows) {
      way.send(row.frame);
      ++expected[std::string(reason_name(row.reason))];
      ++sent;
    }
    const model::EgressFacts facts = network.after(sent);
    CHECK(facts.counted == network.cell.facts().counted + sent);
    CHECK(facts.seen + facts.suppressed + facts.lost == facts.counted);
    for (const auto& [reason, packets] : expected) {
      CAPTURE(reason);
      CHECK(counter(facts, reason) == packets);
    }
    CHECK(router_received(network.router) == 0);
    CHECK(network.wire.seen(kDenied).empty());

    // The undisguised frame is the proof that all of it had a way to go.
    way.send(query());
    CHECK(network.wire.seen(kDenied) == std::map<std::string, std::size_t>{{"17 198.51.100.2:53", 0}});
    CHECK(counter(network.after(sent + 1), "allowed") == 1);
    CHECK(nft_counter(network.router, "unmarked") == 0);
    CHECK(network.cell.verify_attached().ok());
  });
}

TEST_CASE("a packet of many segments is one decision: all of it passes or none, and its bytes are counted") {
  constexpr std::size_t kLength = 6000;  // more than a page, so that only `hdr_len` bytes of it are in one piece
  const auto segments = [](std::uint32_t to, std::uint16_t port, std::uint8_t flags) {
    return lengthened(with(packet(to, port), kTcpFlags, {flags}), kLength);
  };
  const Offload offload{.flags = kNeedsChecksum,
                        .gso_type = kGsoTcp4,
                        .hdr_len = 14,
                        .gso_size = 1400,
                        .csum_start = 34,
                        .csum_offset = 16};
  on_every_way([&](Network& network, Way& way) {
    constexpr std::uint8_t kAck = 0x10;
    const auto before = network.cell.facts();
    way.send(segments(kOutside, 443, 0x02), offload);  // denied by its address
    way.send(segments(kSink, 444, 0x02), offload);     // by its port
    way.send(segments(kSink, 443, kAck), offload);     // of no flow
    way.send(with(segments(kSink, 443, kAck), 26, {100, 64, 0, 3}), offload);
    way.send(with(segments(kSink, 443, kAck), 6, {0x02, 0, 0, 0, 0, 9}), offload);
    const unsigned tags = way.offloads_behind_tags() ? 1 : 0;
    if (tags != 0) {
      Offload behind = offload;
      behind.csum_start += 4;
      way.send(tagged(segments(kSink, 443, kAck), {0x81, 0x00, 0, 0}), behind);
    }
    auto facts = network.after(5 + tags);
    CHECK(counter(facts, "default-deny") == counter(before, "default-deny") + 2);
    CHECK(counter(facts, "tcp-state") == 1);
    CHECK(counter(facts, "source-address") == 1);
    CHECK(counter(facts, "source-mac") == 1);
    CHECK(counter(facts, "vlan") == tags);
    CHECK(network.wire.seen(kDenied).empty());

    way.send(packet(kSink, 443));  // opens the flow
    way.send(segments(kSink, 443, kAck), offload);
    const auto arrived = network.wire.seen(kDenied);
    REQUIRE(arrived.size() == 1);
    CHECK(arrived.begin()->first == "6 198.51.100.2:443");
    CHECK(arrived.begin()->second == kLength - 54);
    facts = network.after(6 + tags);
    CHECK(counter(facts, "established") == 1);
    CHECK(facts.used_bytes == 54 + kLength + 54 * counter(facts, "reply"));  // nobody listens: the sink resets
    CHECK(nft_counter(network.router, "unmarked") == 0);
  });
}

TEST_CASE("a datagram that the kernel is asked to cut into fragments arrives at the filter as fragments") {
  // veth carries no such packet whole: it is cut on the cell's side, whoever made it.
  constexpr std::size_t kLength = 6000;
  const base::Bytes frame = with(lengthened(query(), kLength), 38, {(kLength - 34) >> 8, (kLength - 34) & 0xff});
  const Offload offload{.flags = kNeedsChecksum,
                        .gso_type = kGsoUdp,
                        .hdr_len = 14,
                        .gso_size = 1400,
                        .csum_start = 34,
                        .csum_offset = 6};
  on_every_way([&](Network& network, Way& way) {
    const std::vector<base::Bytes> frames{frame, with(frame, 36, {0, 54}), with(frame, 30, {198, 51, 100, 7})};
    for (const base::Bytes& datagram : frames) {
      way.send(datagram, offload);
    }
    const model::EgressFacts facts = network.after(frames.size() * (kLength / 1500));
    CHECK(counter(facts, "fragment") >= frames.size() * (kLength / 1500));
    CHECK(counter(facts, "fragment") == facts.counted - network.cell.facts().counted);
    CHECK(router_received(network.router) == 0);
    CHECK(network.wire.seen(kDenied).empty());
  });
}

int main(int argc, char** argv) {
  if (::geteuid() != 0) {
    std::puts("skipped: needs root (network namespaces, mounts, BPF)");
    return 77;
  }
  if (!base::exists("/usr/sbin/nft") || !base::exists("/dev/net/tun")) {
    std::puts("skipped: needs /usr/sbin/nft and /dev/net/tun");
    return 77;
  }
  if (::unshare(CLONE_NEWNS) != 0 || ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    std::puts("skipped: needs a mount namespace of its own");
    return 77;
  }
  doctest::Context context(argc, argv);
  return context.run();
}
