// A node's uplink on the real kernel. Each case has a host of its own: a network namespace with an interface to a sink
// and another to a network that the node has no business with. The machine's own namespace is never touched. Needs
// root.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>
#include <netinet/tcp.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cstdio>

#include "netpolicy/frame.hpp"
#include "netpolicy/uplink_record.hpp"
#include "tests/support/egress_packets.hpp"
#include "tests/support/sink_host.hpp"

using namespace cellrund;
using namespace cellrund::netpolicy;
using namespace cellrund::test;

namespace {

constexpr auto kDenied = 400ms;                 // how long something that must not arrive is waited for
constexpr std::uint32_t kHostWan = 0xcb007101;  // 203.0.113.1
constexpr std::uint32_t kSinkWan = 0xcb007102;  // 203.0.113.2
constexpr std::uint32_t kFarAway = 0xc6336402;  // 198.51.100.2, behind the sink
constexpr std::uint32_t kHostLan = 0xc0000201;  // 192.0.2.1
constexpr std::uint32_t kLanPeer = 0xc0000202;  // 192.0.2.2

void must(const base::Status& status) {
  REQUIRE_MESSAGE(status.ok(), (status.ok() ? "" : status.error().message()));
}

// Moves the test itself (its main thread, and what that starts) into a host of its own: wan0 leads to the sink, which
// has no route back to anything but the host's own address, lan0 to somewhere else in the sink's namespace.
class FakeHost {
 public:
  explicit FakeHost(std::uint32_t mtu = kMtu) {
    REQUIRE(::unshare(CLONE_NEWNET) == 0);
    auto sink = on_throwaway_thread([] { return new_netns_here(); });
    REQUIRE(sink.ok());
    sink_ = std::move(*sink);
    must(build(mtu));
  }

  [[nodiscard]] int sink() const noexcept { return sink_.get(); }
  [[nodiscard]] static base::UniqueFd here() {
    auto fd = base::open_file("/proc/thread-self/ns/net", O_RDONLY);
    REQUIRE(fd.ok());
    return std::move(*fd);
  }

 private:
  base::Status build(std::uint32_t mtu) {
    Rtnl host = CR_TRY(Rtnl::open());
    Rtnl sink = CR_TRY(in_netns(sink_.get(), [] { return Rtnl::open(); }));
    CR_CHECK(host.set_up(1));
    CR_CHECK(sink.set_up(1));
    CR_CHECK(host.create_veth({"wan0", {2, 0, 0, 0, 0, 1}, "sink0", {2, 0, 0, 0, 0, 2}, sink_.get(), mtu}));
    CR_CHECK(host.create_veth({"lan0", {2, 0, 0, 0, 0, 3}, "lan1", {2, 0, 0, 0, 0, 4}, sink_.get(), mtu}));
    const auto link = [&](Rtnl& rtnl, const char* name, std::uint32_t address, int prefix) -> base::Status {
      const std::uint32_t index = CR_TRY(rtnl.link_index(name));
      CR_CHECK(rtnl.add_address(index, address, prefix));
      return rtnl.set_up(index);
    };
    CR_CHECK(link(host, "wan0", kHostWan, 24));
    CR_CHECK(link(host, "lan0", kHostLan, 24));
    CR_CHECK(link(sink, "sink0", kSinkWan, 24));
    CR_CHECK(link(sink, "sink0", kFarAway, 32));
    CR_CHECK(link(sink, "lan1", kLanPeer, 24));
    return host.add_default_route(CR_TRY(host.link_index("wan0")), kSinkWan);
  }
  base::UniqueFd sink_;
};

std::string forwarding(const std::string& link) {
  const auto value = net_sysctl("ipv4/conf/" + link + "/forwarding");
  REQUIRE(value.ok());
  return *value;
}
void set_forwarding(const std::string& link, const char* value) {
  must(set_net_sysctl("ipv4/conf/" + link + "/forwarding", value));
}

std::string nft(std::vector<std::string> arguments) {
  base::SpawnOptions command;
  command.argv = {"/usr/sbin/nft"};
  command.argv.insert(command.argv.end(), arguments.begin(), arguments.end());
  const auto result = base::run_command(command, "", base::Deadline::after(10s));
  REQUIRE(result.ok());
  return result->exit.value == 0 ? result->out : "failed: " + result->err;
}

std::uint64_t host_counter(const TestNode& node, const std::string& name) {
  const std::string listed = nft({"list", "counter", "inet", host_table(node.tag), name});
  unsigned long long packets = 0;
  const std::size_t at = listed.find("packets ");
  REQUIRE(at != std::string::npos);
  REQUIRE(std::sscanf(listed.c_str() + at, "packets %llu", &packets) == 1);
  return packets;
}

bool link_exists(const std::string& name) {
  auto rtnl = Rtnl::open();
  REQUIRE(rtnl.ok());
  return rtnl->find_link(name).ok();
}

// Nothing of the node in the host's namespace.
void check_host_is_clean(const TestNode& node) {
  CHECK_FALSE(link_exists(uplink_host_link(node.tag)));
  CHECK(nft({"list", "tables"}).find(host_table(node.tag)) == std::string::npos);
  CHECK_FALSE(base::exists(uplink_file(node.run_dir, node.tag)));
}

NetworkedCell connect_with(const TestNode& node, const Router& router, model::EgressPolicy egress,
                           std::uint32_t slot = 0) {
  Recorder journal;
  auto relaxations = admit::EgressGrants::from(std::vector<std::string>{"public"}).relaxations_for(egress);
  auto cell = router.connect(
      node.cell(slot), journal,
      {.egress = std::move(egress), .relaxations = std::move(relaxations), .expect_blocked = {}, .on_alarm = {}});
  REQUIRE_MESSAGE(cell.ok(), (cell.ok() ? "" : cell.error().message()));
  return std::move(*cell);
}

std::uint32_t peer_of(int socket) {
  sockaddr_in address{};
  socklen_t size = sizeof address;
  REQUIRE(::getpeername(socket, reinterpret_cast<sockaddr*>(&address), &size) == 0);
  return ntohl(address.sin_addr.s_addr);
}

UplinkRecord record_of(const TestNode& node) {
  auto record = load_uplink_record(uplink_file(node.run_dir, node.tag));
  REQUIRE(record.ok());
  REQUIRE(record->has_value());
  return **record;
}

// A datagram as it comes out of the router namespace, whatever that namespace's own firewall says.
base::Bytes out_of_router(const UplinkRecord& record, std::uint32_t to, std::uint16_t port) {
  return build_frame({{0x02, 0x43, 0x52, 0x00, 0x01, 0x02},
                      {0x02, 0x43, 0x52, 0x00, 0x01, 0x01},
                      record.address + 1,
                      to,
                      kUdp,
                      4000,
                      port});
}

bool arrives(int socket, std::chrono::milliseconds budget) {
  char byte = 0;
  return wait_for(socket, POLLIN, budget) && ::recv(socket, &byte, 1, 0) >= 0;
}

}  // namespace

TEST_CASE("what a rule allows leaves under the host's address and comes back; nothing else leaves") {
  for (const Attach attach : {Attach::kTcx, Attach::kClsact}) {
    CAPTURE(to_string(attach));
    const FakeHost host;
    const base::UniqueFd web = serve_in(host.sink(), SOCK_STREAM, 443);
    const base::UniqueFd other = serve_in(host.sink(), SOCK_STREAM, 444);
    const base::UniqueFd names = serve_in(host.sink(), SOCK_DGRAM, 53);
    const TestNode node;
    const Router router = node.open(attach, "wan0");
    const NetworkedCell cell =
        connect_with(node, router,
                     {{rule("198.51.100.2/32", {443}), rule("203.0.113.2/32", {53}, model::Transport::kUdp),
                       rule("192.0.2.2/32", {443})},
                      {}});

    const Connection connection = open_connection(cell.netns_fd(), web.get(), kFarAway, 443);
    REQUIRE(connection.open());
    CHECK(peer_of(connection.sink.get()) == kHostWan);
    CHECK(carries(connection.cell.get(), connection.sink.get(), 5s));
    CHECK(carries(connection.sink.get(), connection.cell.get(), 5s));
    const base::UniqueFd query = start_connect(cell.netns_fd(), SOCK_DGRAM, kSinkWan, 53);
    CHECK(carries(query.get(), names.get(), 5s));

    CHECK_FALSE(open_connection(cell.netns_fd(), other.get(), kFarAway, 444, kDenied).open());
    CHECK_FALSE(open_connection(cell.netns_fd(), web.get(), kSinkWan, 443, kDenied).open());
    // The policy allows it, but the way there is not the uplink's interface.
    CHECK_FALSE(open_connection(cell.netns_fd(), web.get(), kLanPeer, 443, kDenied).open());
    CHECK(host_counter(node, "elsewhere") > 0);
    CHECK(host_counter(node, "sent") > 0);
    CHECK(host_counter(node, "returned") > 0);
    CHECK(host_counter(node, "to_host") == 0);
    CHECK(nft_counter(router, "unmarked") == 0);
    CHECK(nft_counter(router, "untracked") == 0);
    CHECK(cell.verify_attached().ok());
  }
}

TEST_CASE("nothing out of the router namespace reaches the host itself, a filter or not") {
  const FakeHost host;
  const TestNode node;
  const Router router = node.open(Attach::kAuto, "wan0");
  const UplinkRecord record = record_of(node);
  const base::UniqueFd service = serve_in(FakeHost::here().get(), SOCK_DGRAM, 7777);
  const auto ns = open_netns(router.netns_path());
  REQUIRE(ns.ok());
  const std::vector<base::Bytes> frames{out_of_router(record, kHostWan, 7777), out_of_router(record, kHostLan, 7777),
                                        out_of_router(record, record.address, 7777),
                                        out_of_router(record, 0x7f000001, 7777)};
  send_all(ns->get(), frames, kUplink);
  CHECK_FALSE(arrives(service.get(), kDenied));
  CHECK(host_counter(node, "to_host") == 3);  // the one to 127.0.0.1 is dropped as a martian before
  // The same without the node's table does arrive: it is the table that stops it.
  (void)nft({"delete", "table", "inet", host_table(node.tag)});
  send_all(ns->get(), frames, kUplink);
  CHECK(arrives(service.get(), 5s));
}

TEST_CASE("a forged source goes nowhere, and nobody outside reaches a cell that did not call") {
  const FakeHost host;
  const TestNode node;
  const Router router = node.open(Attach::kAuto, "wan0");
  const NetworkedCell cell = connect_with(node, router, {{rule("198.51.100.2/32", {53}, model::Transport::kUdp)}, {}});
  const UplinkRecord record = record_of(node);
  const base::UniqueFd names = serve_in(host.sink(), SOCK_DGRAM, 53);
  const auto ns = open_netns(router.netns_path());
  REQUIRE(ns.ok());
  UplinkRecord forged = record;
  forged.address = 0x64400000;
  send_all(ns->get(), {out_of_router(forged, kFarAway, 53)}, kUplink);
  CHECK_FALSE(arrives(names.get(), kDenied));
  // The sink knows where the cell is and sends there by way of the host.
  auto sent = in_netns(host.sink(), [&]() -> base::Status {
    Rtnl rtnl = CR_TRY(Rtnl::open());
    CR_CHECK(rtnl.add_default_route(CR_TRY(rtnl.link_index("sink0")), kHostWan));
    for (const std::uint32_t target : {record.address + 1, 0x64400001U}) {
      const sockaddr_in to = socket_address(target, 4000);
      if (::sendto(names.get(), "x", 1, 0, reinterpret_cast<const sockaddr*>(&to), sizeof to) != 1) {
        return base::Error::from_errno("sendto");
      }
    }
    return base::ok();
  });
  must(sent);
  const base::Deadline deadline = base::Deadline::after(5s);
  while (host_counter(node, "uninvited") + host_counter(node, "foreign") < 2 && !deadline.expired()) {
  }
  CHECK(host_counter(node, "uninvited") == 1);
  CHECK(nft_counter(router, "returned") == 0);
  CHECK(counter(*read_facts(node.cell(0), node.run_dir), "inbound") == counter(cell.facts(), "inbound"));
}

TEST_CASE("the host forwards for the node and for nobody else, and ip_forward stays as it was") {
  const FakeHost host;
  {
    const TestNode node;
    CHECK(forwarding("wan0") == "0");
    const Router router = node.open(Attach::kAuto, "wan0");
    CHECK(forwarding("wan0") == "1");
    CHECK(forwarding("lan0") == "0");
    CHECK(forwarding("all") == "0");
    CHECK(*net_sysctl("ipv4/ip_forward") == "0");
    // A neighbour on wan0 that takes the host for a router.
    const base::UniqueFd service = serve_in(host.sink(), SOCK_DGRAM, 9);
    const base::Bytes frame = build_frame({{2, 0, 0, 0, 0, 2}, {2, 0, 0, 0, 0, 1}, kSinkWan, kLanPeer, kUdp, 4000, 9});
    send_all(host.sink(), {frame}, "sink0");
    CHECK_FALSE(arrives(service.get(), kDenied));
    CHECK(host_counter(node, "foreign") == 1);
    CHECK(Router::destroy(node.run_dir, node.tag).empty());
    CHECK(forwarding("wan0") == "0");
    check_host_is_clean(node);
  }
  CHECK(forwarding("wan0") == "0");
}

TEST_CASE("what somebody else has set or needs is never lowered") {
  SUBCASE("it forwarded before") {
    const FakeHost host;
    set_forwarding("wan0", "1");
    {
      const TestNode node;
      const Router router = node.open(Attach::kAuto, "wan0");
    }
    CHECK(forwarding("wan0") == "1");
  }
  SUBCASE("the host became a router since") {
    const FakeHost host;
    {
      const TestNode node;
      const Router router = node.open(Attach::kAuto, "wan0");
      must(set_net_sysctl("ipv4/ip_forward", "1"));
    }
    CHECK(forwarding("wan0") == "1");
    CHECK(forwarding("all") == "1");
  }
  SUBCASE("another node uses the interface: the last one puts it back, in whichever order") {
    const FakeHost host;
    const base::UniqueFd web = serve_in(host.sink(), SOCK_STREAM, 443);
    for (const bool first_goes_first : {true, false}) {
      CAPTURE(first_goes_first);
      const TestNode one(1), two(2);
      const Router first = one.open(Attach::kAuto, "wan0");
      const Router second = two.open(Attach::kAuto, "wan0");
      CHECK(record_of(one).address != record_of(two).address);
      const TestNode& gone = first_goes_first ? one : two;
      const TestNode& stays = first_goes_first ? two : one;
      {
        // The same slot, and so the same address, in both.
        const NetworkedCell a = connect_with(one, first, {{rule("198.51.100.2/32", {443})}, {}});
        const NetworkedCell b = connect_with(two, second, {{rule("198.51.100.2/32", {443})}, {}});
        CHECK(open_connection(a.netns_fd(), web.get(), kFarAway, 443).open());
        CHECK(open_connection(b.netns_fd(), web.get(), kFarAway, 443).open());
        CHECK(disconnect(gone.cell(0), gone.run_dir).empty());
        CHECK(Router::destroy(gone.run_dir, gone.tag).empty());
        CHECK(forwarding("wan0") == "1");
        check_host_is_clean(gone);
        CHECK(open_connection((first_goes_first ? b : a).netns_fd(), web.get(), kFarAway, 443).open());
      }
      CHECK(disconnect(stays.cell(0), stays.run_dir).empty());
      CHECK(Router::destroy(stays.run_dir, stays.tag).empty());
      CHECK(forwarding("wan0") == "0");
    }
  }
}

TEST_CASE("a restarted daemon adopts the uplink, another setting takes it away") {
  const FakeHost host;
  const base::UniqueFd web = serve_in(host.sink(), SOCK_STREAM, 443);
  const TestNode node;
  const auto index = [&] { return *Rtnl::open()->link_index(uplink_host_link(node.tag)); };
  std::uint32_t before = 0;
  {
    const Router router = node.open(Attach::kAuto, "wan0");
    before = index();
  }
  {
    const Router adopted = node.open(Attach::kAuto, "wan0");
    CHECK(index() == before);
    const NetworkedCell cell = connect_with(node, adopted, {{rule("198.51.100.2/32", {443})}, {}});
    CHECK(open_connection(cell.netns_fd(), web.get(), kFarAway, 443).open());
    CHECK(disconnect(node.cell(0), node.run_dir).empty());
  }
  {
    const Router moved = node.open(Attach::kAuto, "lan0");
    CHECK(forwarding("wan0") == "0");
    CHECK(forwarding("lan0") == "1");
    const NetworkedCell cell =
        connect_with(node, moved, {{rule("198.51.100.2/32", {443}), rule("192.0.2.2/32", {443})}, {}});
    CHECK(open_connection(cell.netns_fd(), web.get(), kLanPeer, 443).open());
    CHECK_FALSE(open_connection(cell.netns_fd(), web.get(), kFarAway, 443, kDenied).open());
    CHECK(disconnect(node.cell(0), node.run_dir).empty());
  }
  const Router closed = node.open(Attach::kAuto);
  CHECK(forwarding("lan0") == "0");
  check_host_is_clean(node);
}

TEST_CASE("every part that a crash may leave is finished by the next start and removed by the end") {
  for (const bool restart : {false, true}) {
    for (const char* lost :
         {"table", "link", "address", "route", "forwarding", "everything but the record", "record"}) {
      CAPTURE(restart);
      CAPTURE(lost);
      const FakeHost host;
      const base::UniqueFd web = serve_in(host.sink(), SOCK_STREAM, 443);
      const TestNode node;
      { const Router router = node.open(Attach::kAuto, "wan0"); }
      const std::string link = uplink_host_link(node.tag);
      const std::string_view what = lost;
      auto rtnl = Rtnl::open();
      REQUIRE(rtnl.ok());
      if (what == "table" || what == "everything but the record") {
        (void)nft({"delete", "table", "inet", host_table(node.tag)});
      }
      if (what == "link" || what == "everything but the record") {
        must(rtnl->delete_link(*rtnl->link_index(link)));
      }
      if (what == "address") {  // and the route with it
        must(rtnl->set_down(*rtnl->link_index(link)));
      }
      if (what == "route") {
        const auto ns = open_netns(router_netns(node.run_dir, node.tag));
        REQUIRE(ns.ok());
        auto inner = in_netns(ns->get(), [] { return Rtnl::open(); });
        REQUIRE(inner.ok());
        must(inner->set_down(*inner->link_index(kUplink)));
      }
      if (what == "forwarding" || what == "everything but the record") {
        set_forwarding("wan0", "0");
      }
      if (what == "record") {
        must(base::remove_file(uplink_file(node.run_dir, node.tag)));
      }
      if (restart) {
        const Router router = node.open(Attach::kAuto, "wan0");
        const NetworkedCell cell = connect_with(node, router, {{rule("198.51.100.2/32", {443})}, {}});
        CHECK(open_connection(cell.netns_fd(), web.get(), kFarAway, 443).open());
        CHECK(disconnect(node.cell(0), node.run_dir).empty());
      }
      CHECK(Router::destroy(node.run_dir, node.tag).empty());
      CHECK(forwarding("wan0") == "0");
      check_host_is_clean(node);
    }
  }
}

TEST_CASE("an interface that is not there is refused before anything is made") {
  const FakeHost host;
  const TestNode node;
  const auto router = Router::open({.run_dir = node.run_dir, .node = node.tag, .uplink = "eth7"});
  REQUIRE_FALSE(router.ok());
  CHECK(router.error().code() == base::Errc::kFailedPrecondition);
  CHECK(router.error().message() ==
        "[network] uplink = \"eth7\": the host has no interface of that name; set it to one that "
        "`ip link` lists, or to \"none\"");
  CHECK_FALSE(base::exists(netns_dir(node.run_dir)));
  check_host_is_clean(node);
}

TEST_CASE("an interface that takes shorter packets shortens TCP segments, both ways") {
  constexpr std::uint32_t kShort = 1300;
  const FakeHost host(kShort);
  const base::UniqueFd web = serve_in(host.sink(), SOCK_STREAM, 443);
  const TestNode node;
  const Router router = node.open(Attach::kAuto, "wan0");
  const NetworkedCell cell = connect_with(node, router, {{rule("198.51.100.2/32", {443})}, {}});
  const Connection connection = open_connection(cell.netns_fd(), web.get(), kFarAway, 443);
  REQUIRE(connection.open());
  CHECK(carries(connection.sink.get(), connection.cell.get(), 5s));
  for (const int socket : {connection.cell.get(), connection.sink.get()}) {
    int segment = 0;
    socklen_t size = sizeof segment;
    REQUIRE(::getsockopt(socket, IPPROTO_TCP, TCP_MAXSEG, &segment, &size) == 0);
    CHECK(segment <= static_cast<int>(kShort) - 40);
  }
}

int main(int argc, char** argv) {
  if (::geteuid() != 0) {
    std::puts("skipped: needs root (network namespaces, mounts, BPF)");
    return 77;
  }
  if (!base::exists("/usr/sbin/nft")) {
    std::puts("skipped: needs /usr/sbin/nft");
    return 77;
  }
  if (::unshare(CLONE_NEWNS | CLONE_NEWNET) != 0 || ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    std::puts("skipped: needs mount and network namespaces of its own");
    return 77;
  }
  doctest::Context context(argc, argv);
  return context.run();
}
