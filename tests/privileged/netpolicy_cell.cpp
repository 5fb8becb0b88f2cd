// A cell's network on the real kernel: made, flooded, tampered with, removed. Everything lives in a run folder and in
// namespaces of its own. Needs root.
#define DOCTEST_CONFIG_IMPLEMENT
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <doctest/doctest.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/if_packet.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstring>
#include <map>
#include <thread>

#include "base/file.hpp"
#include "base/process.hpp"
#include "netpolicy/attach.hpp"
#include "netpolicy/canary.hpp"
#include "netpolicy/classifier.hpp"
#include "netpolicy/filter.hpp"
#include "netpolicy/names.hpp"
#include "netpolicy/netns.hpp"
#include "netpolicy/router.hpp"
#include "netpolicy/rtnl.hpp"
#include "tests/support/cell_network.hpp"
#include "tests/support/egress_packets.hpp"

using namespace cellrund;
using namespace cellrund::netpolicy;
using namespace cellrund::test;
using namespace std::chrono_literals;

TEST_CASE("connect proves a deny-all network and journals what it made") {
  for (const Attach attach : {Attach::kTcx, Attach::kClsact}) {
    CAPTURE(to_string(attach));
    const TestNode node;
    const Router router = node.open(attach);
    CHECK(router.attach() == attach);
    Recorder journal;
    const std::vector<model::ExpectBlocked> targets{{"203.0.113.9", 443, "tcp"}, {"127.0.0.1", 80, "tcp"}};
    auto cell = router.connect(node.cell(0), journal, {.egress = {}, .relaxations = {}, .expect_blocked = targets, .on_alarm = {}});
    REQUIRE_MESSAGE(cell.ok(), (cell.ok() ? "" : cell.error().message()));
    const model::EgressFacts& facts = cell->facts();
    CHECK(facts.canary_sent == 6);  // three of its own, two targets, one inbound
    CHECK(facts.canary_blocked == facts.canary_sent);
    CHECK(facts.canary_counted == facts.canary_sent);
    CHECK(facts.counted == facts.canary_sent);
    CHECK(facts.seen + facts.suppressed + facts.lost == facts.counted);
    CHECK(counter(facts, "metadata") == 1);
    CHECK(counter(facts, "loopback") == 1);
    CHECK(counter(facts, "default-deny") == 3);
    CHECK(counter(facts, "inbound") == 1);
    CHECK(facts.program_tag.size() == 33);
    CHECK(facts.program_ids.size() == 2);
    CHECK(facts.link_ids.size() == (attach == Attach::kTcx ? 2 : 0));
    CHECK(facts.attach_ifindex > 0);
    CHECK(facts.readback_boot_ns > 0);
    CHECK(facts.attach_hook == std::string(to_string(attach)) + "/ingress+egress");
    CHECK(cell->interface().address == "100.64.0.1");
    CHECK(cell->interface().gateway == "100.64.0.0");

    CHECK(journal.items.size() == journal.intended.size());
    for (const auto& item : journal.items) {
      CAPTURE(item.name);
      CHECK_FALSE(item.identity.empty());
      const auto same = [&](const auto& other) { return other.kind == item.kind && other.name == item.name; };
      CHECK(std::count_if(journal.intended.begin(), journal.intended.end(), same) == 1);
    }
    CHECK(cell->verify_attached().ok());
    const auto end = router.prove_end(*cell);
    REQUIRE_MESSAGE(end.ok(), (end.ok() ? "" : end.error().message()));
    CHECK(end->canary.proven);
    CHECK_FALSE(end->refuted);
    CHECK(end->canary.sent == 6);
    CHECK(end->canary.blocked == 6);
    CHECK(end->canary.counted == 6);
    CHECK(read_facts(node.cell(0), node.run_dir)->counted == 12);
    const auto late = router.connect(node.cell(0), journal);
    REQUIRE_FALSE(late.ok());
    CHECK(late.error().code() == base::Errc::kAlreadyExists);
    CHECK(cell->verify_attached().ok());
  }
}

TEST_CASE("no packet of the table comes out, each is counted exactly, and firewall and IP layer see none") {
  for (const Attach attach : {Attach::kTcx, Attach::kClsact}) {
    CAPTURE(to_string(attach));
    const TestNode node;
    const Router router = node.open(attach);
    const NetworkedCell cell = connect(node, router);
    constexpr std::uint64_t kRounds = 40;
    std::map<std::string, std::uint64_t> expected;
    for (const auto& [reason, packets] : cell.facts().counters) {
      expected[reason] = packets;
    }
    std::vector<base::Bytes> frames;
    std::uint64_t total = cell.facts().counted;
    for (std::uint64_t round = 0; round < kRounds; ++round) {
      for (const auto& row : test::packet_table()) {
        frames.push_back(row.frame);
        ++expected[std::string(reason_name(row.reason))];
        ++total;
      }
    }
    send_all(cell.netns_fd(), frames);
    const model::EgressFacts facts = settled(node, 0, total);
    CHECK(facts.counted == total);
    CHECK(facts.seen + facts.suppressed + facts.lost == facts.counted);
    for (const auto& [reason, packets] : expected) {
      CAPTURE(reason);
      CHECK(counter(facts, reason) == packets);
    }
    CHECK(router_received(router) == 0);
    CHECK(nft_counter(router, "unmarked") == 0);
    CHECK(nft_counter(router, "forwarded") == 0);
    CHECK(nft_counter(router, "delivered") == 0);
    CHECK(cell.verify_attached().ok());
  }
}

TEST_CASE("a segmentation-offload packet in fragments of memory is read as well as any") {
  const TestNode node;
  const Router router = node.open(Attach::kAuto);
  const NetworkedCell cell = connect(node, router);
  // 6,000 bytes, longer than a page, so that the kernel puts only `hdr_len` bytes into the linear part.
  base::Bytes frame = test::packet();
  frame.resize(6000, 'x');
  frame = test::with(frame, 16, {(6000 - 14) >> 8, (6000 - 14) & 0xff});
  struct {                      // struct virtio_net_hdr of linux/virtio_net.h, which is no C++
    std::uint8_t flags = 1;     // VIRTIO_NET_HDR_F_NEEDS_CSUM
    std::uint8_t gso_type = 1;  // VIRTIO_NET_HDR_GSO_TCPV4
    std::uint16_t hdr_len = 14, gso_size = 1400, csum_start = 34, csum_offset = 16;
  } const offload;
  static_assert(sizeof offload == 10);
  const auto sent = in_netns(cell.netns_fd(), [&]() -> base::Status {
    const base::UniqueFd socket = CR_TRY(open_packet_socket());
    const int on = 1;
    if (::setsockopt(socket.get(), SOL_PACKET, PACKET_VNET_HDR, &on, sizeof on) != 0) {
      return base::Error::from_errno("PACKET_VNET_HDR");
    }
    base::Bytes message(sizeof offload);
    std::memcpy(message.data(), &offload, sizeof offload);
    message.insert(message.end(), frame.begin(), frame.end());
    sockaddr_ll to{};
    to.sll_family = AF_PACKET;
    to.sll_protocol = htons(0x0800);
    to.sll_ifindex = 2;
    if (::sendto(socket.get(), message.data(), message.size(), 0, reinterpret_cast<const sockaddr*>(&to), sizeof to) <
        0) {
      return base::Error::from_errno("send");
    }
    return base::ok();
  });
  REQUIRE_MESSAGE(sent.ok(), (sent.ok() ? "" : sent.error().message()));
  const auto facts = settled(node, 0, cell.facts().counted + 1);
  CHECK(facts.counted == cell.facts().counted + 1);
  CHECK(counter(facts, "default-deny") == counter(cell.facts(), "default-deny") + 1);
  const auto& last = facts.decisions.back();
  CHECK(last.destination == "198.51.100.7");
  CHECK(last.port == 443);
  CHECK(router_received(router) == 0);
}

TEST_CASE("frames sent before, while and after the link comes up never get behind the filter") {
  const TestNode node;
  const Router router = node.open(Attach::kAuto);
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> sent{0};
  const auto frame = test::packet(test::kOutside, 9, test::kUdp);
  std::jthread intruder([&] {
    // Enters the namespace as soon as its file is there and fires at whatever eth0 is.
    while (!stop) {
      const auto ns = open_netns(cell_netns(node.run_dir, node.cell(0)));
      if (!ns.ok()) {
        continue;
      }
      (void)in_netns(ns->get(), [&]() -> base::Status {
        const base::UniqueFd socket = CR_TRY(open_packet_socket());
        sockaddr_ll to{};
        to.sll_family = AF_PACKET;
        to.sll_ifindex = 2;
        while (!stop) {
          if (::sendto(socket.get(), frame.data(), frame.size(), 0, reinterpret_cast<const sockaddr*>(&to), sizeof to) >
              0) {
            ++sent;
          }
        }
        return base::ok();
      });
    }
  });
  Recorder journal;
  const auto cell = router.connect(node.cell(0), journal);
  const base::Deadline deadline = base::Deadline::after(5s);
  while (sent < 1000 && !deadline.expired()) {
    std::this_thread::yield();
  }
  stop = true;
  intruder.join();
  CHECK(sent >= 1000);
  // The canary cannot be exact beside such a neighbour: then connect must have failed, never passed quietly.
  if (!cell.ok()) {
    CHECK(cell.error().code() == base::Errc::kFailedPrecondition);
  }
  CHECK(router_received(router) == 0);
}

TEST_CASE("a canary that meets no filter fails") {
  const TestNode node;
  const Router router = node.open(Attach::kAuto);
  const auto ns = open_netns(router.netns_path());
  REQUIRE(ns.ok());
  const auto program = FilterProgram::prepare();
  REQUIRE(program.ok());
  const CompiledPolicy policy = test::deny_all();
  LIBBPF_OPTS(bpf_map_create_opts, options, .map_flags = BPF_F_RDONLY_PROG);
  const base::UniqueFd node_map(::bpf_map_create(BPF_MAP_TYPE_ARRAY, "cellrun_test", 4, sizeof(cr_node), 1, &options));
  const auto filter = program->load(node.cell(1), test::packet_config(), policy, node_map.get());  // attached to nothing
  REQUIRE(filter.ok());
  const auto result = on_throwaway_thread([&]() -> base::Result<CanaryResult> {
    const base::UniqueFd cell_ns = CR_TRY(new_netns_here());
    Rtnl inside = CR_TRY(Rtnl::open());
    const base::UniqueFd inside_packets = CR_TRY(open_packet_socket());
    CR_CHECK(enter_netns(ns->get()));
    Rtnl outside = CR_TRY(Rtnl::open());
    const base::UniqueFd outside_packets = CR_TRY(open_packet_socket());
    CR_CHECK(
        outside.create_veth({node.cell(1).host_link(), kGatewayMac, kCellInterface, kCellMac, cell_ns.get(), kMtu}));
    const std::uint32_t host = CR_TRY(outside.link_index(node.cell(1).host_link()));
    const std::uint32_t peer = CR_TRY(inside.link_index(kCellInterface));
    CR_CHECK(outside.set_up(host));
    CR_CHECK(inside.set_up(peer));
    return run_canary({inside_packets.get(), peer}, {outside_packets.get(), host},
                      CR_TRY(canary_probes(test::packet_config(), policy, {})), filter->counters(), filter->decisions(),
                      base::Deadline::after(2s));
  });
  REQUIRE_FALSE(result.ok());
  CHECK(result.error().code() == base::Errc::kFailedPrecondition);
  CHECK(result.error().message().find("canary") != std::string::npos);
}

TEST_CASE("the canary at the end tells a network that was cut from one that lets frames through") {
  for (const Attach attach : {Attach::kTcx, Attach::kClsact}) {
    CAPTURE(to_string(attach));
    const TestNode node;
    const Router router = node.open(attach);
    const NetworkedCell open = connect(node, router, 0);
    if (attach == Attach::kTcx) {
      REQUIRE(base::remove_file(pin_dir(node.run_dir, node.cell(0)) + "/" + kPinLinkOut).ok());
      wait_hook_empty(router, open.facts().attach_ifindex);
    } else {
      const auto ns = open_netns(router.netns_path());
      REQUIRE(ns.ok());
      const auto removed = in_netns(ns->get(), [&] {
        base::SpawnOptions command;
        command.argv = {"/usr/sbin/tc", "qdisc", "del", "dev", node.cell(0).host_link(), "clsact"};
        return base::run_command(command, "", base::Deadline::after(10s));
      });
      REQUIRE(removed.ok());
    }
    const auto through = router.prove_end(open);
    REQUIRE(through.ok());
    CHECK(through->refuted);
    CHECK_FALSE(through->canary.proven);
    CHECK(through->canary.blocked < through->canary.sent);
    CHECK(through->canary.why.find("came through") != std::string::npos);

    const NetworkedCell killed = connect(node, router, 1);
    REQUIRE(kill_network(node.cell(1), node.run_dir).ok());
    const auto cut = router.prove_end(killed);
    REQUIRE(cut.ok());
    CHECK_FALSE(cut->refuted);
    CHECK_FALSE(cut->canary.proven);
    CHECK(cut->canary.blocked == cut->canary.sent);
    CHECK(cut->canary.why == "the network had been cut before");

    CHECK(disconnect(node.cell(1), node.run_dir).empty());
    CHECK_FALSE(router.prove_end(killed).ok());
  }
}

TEST_CASE("a filter that is removed is noticed, and the firewall still lets nothing through") {
  for (const Attach attach : {Attach::kTcx, Attach::kClsact}) {
    CAPTURE(to_string(attach));
    const TestNode node;
    const Router router = node.open(attach);
    const NetworkedCell cell = connect(node, router);
    REQUIRE(cell.verify_attached().ok());
    if (attach == Attach::kTcx) {
      REQUIRE(base::remove_file(pin_dir(node.run_dir, node.cell(0)) + "/" + kPinLinkOut).ok());
      wait_hook_empty(router, cell.facts().attach_ifindex);
    } else {
      const auto ns = open_netns(router.netns_path());
      REQUIRE(ns.ok());
      const auto removed = in_netns(ns->get(), [&] {
        base::SpawnOptions command;
        command.argv = {"/usr/sbin/tc", "qdisc", "del", "dev", node.cell(0).host_link(), "clsact"};
        return base::run_command(command, "", base::Deadline::after(10s));
      });
      REQUIRE(removed.ok());
      REQUIRE(removed->exit.value == 0);
    }
    const auto verified = cell.verify_attached();
    REQUIRE_FALSE(verified.ok());
    MESSAGE(verified.error().message());
    send_all(cell.netns_fd(), {test::packet(), test::packet(), test::packet()});
    const base::Deadline deadline = base::Deadline::after(5s);
    while (router_received(router) < 3 && !deadline.expired()) {
      std::this_thread::yield();
    }
    CHECK(router_received(router) == 3);
    CHECK(nft_counter(router, "unmarked") == 3);
    CHECK(nft_counter(router, "forwarded") == 0);
    CHECK(nft_counter(router, "delivered") == 0);
  }
}

TEST_CASE("a foreign program in front of the filter is noticed") {
  for (const Attach attach : {Attach::kTcx, Attach::kClsact}) {
    CAPTURE(to_string(attach));
    const TestNode node;
    const Router router = node.open(attach);
    const NetworkedCell cell = connect(node, router);
    const std::array<std::uint64_t, 2> pass{0x00000000000000b7, 0x0000000000000095};  // r0 = 0 (accept); exit
    const base::UniqueFd foreign(::bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "foreign", "GPL",
                                                 reinterpret_cast<const bpf_insn*>(pass.data()), pass.size(), nullptr));
    REQUIRE(foreign.valid());
    const auto ns = open_netns(router.netns_path());
    REQUIRE(ns.ok());
    const auto link = in_netns(ns->get(), [&]() -> base::Result<base::UniqueFd> {
      constexpr auto kTcxIngress = static_cast<bpf_attach_type>(46);
      base::UniqueFd fd(
          ::bpf_link_create(foreign.get(), static_cast<int>(cell.facts().attach_ifindex), kTcxIngress, nullptr));
      if (!fd) {
        return base::Error::from_errno("attach");
      }
      return fd;
    });
    REQUIRE(link.ok());
    CHECK_FALSE(cell.verify_attached().ok());
  }
}

TEST_CASE("a changed firewall is noticed, and no cell connects behind it") {
  const TestNode node;
  const Router router = node.open(Attach::kAuto);
  const NetworkedCell cell = connect(node, router);
  const auto ns = open_netns(router.netns_path());
  REQUIRE(ns.ok());
  const auto flushed = in_netns(ns->get(), [&] {
    base::SpawnOptions command;
    command.argv = {"/usr/sbin/nft", "flush", "ruleset"};
    return base::run_command(command, "", base::Deadline::after(10s));
  });
  REQUIRE(flushed.ok());
  const auto verified = cell.verify_attached();
  REQUIRE_FALSE(verified.ok());
  CHECK(verified.error().message().find("firewall") != std::string::npos);
  Recorder journal;
  const auto second = router.connect(node.cell(1), journal);
  REQUIRE_FALSE(second.ok());
  CHECK(second.error().code() == base::Errc::kFailedPrecondition);
  const Router reopened = node.open(Attach::kAuto);  // writes it anew
  CHECK(disconnect(node.cell(1), node.run_dir).empty());
  (void)connect(node, reopened, 1);
}

TEST_CASE("cells connect and disconnect side by side") {
  const TestNode node;
  const Router router = node.open(Attach::kAuto);
  std::vector<std::jthread> threads;
  std::atomic<int> good{0};
  for (std::uint32_t slot = 0; slot < 4; ++slot) {
    threads.emplace_back([&, slot] {
      for (int round = 0; round < 5; ++round) {
        Recorder journal;
        const auto cell = router.connect(node.cell(slot), journal);
        if (cell.ok() && cell->verify_attached().ok() && cell->read_facts().ok() &&
            cell->facts().canary_blocked == cell->facts().canary_sent && disconnect(node.cell(slot), node.run_dir).empty()) {
          ++good;
        }
      }
    });
  }
  threads.clear();
  CHECK(good == 20);
  CHECK(router_received(router) == 0);
  for (std::uint32_t slot = 0; slot < 4; ++slot) {
    check_nothing_left(node, node.cell(slot));
  }
}

TEST_CASE("a killed network stays up and lets nothing through, and says why") {
  const TestNode node;
  const Router router = node.open(Attach::kAuto);
  const NetworkedCell cell = connect(node, router);
  REQUIRE(kill_network(node.cell(0), node.run_dir).ok());
  send_all(cell.netns_fd(), {test::packet(), test::packet()});
  const auto facts = settled(node, 0, cell.facts().counted + 2);
  CHECK(counter(facts, "killed") == 2);
  CHECK_FALSE(cell.verify_attached().ok());              // a running cell must not be in this state
  CHECK(kill_network(node.cell(3), node.run_dir).ok());  // never existed
}

TEST_CASE("disconnect leaves nothing and may be repeated") {
  for (const Attach attach : {Attach::kTcx, Attach::kClsact}) {
    CAPTURE(to_string(attach));
    const TestNode node;
    const Router router = node.open(attach);
    {
      const NetworkedCell one = connect(node, router, 0);
      const NetworkedCell two = connect(node, router, 1);
      CHECK(disconnect(node.cell(0), node.run_dir).empty());
      CHECK_FALSE(one.read_facts().ok());
      CHECK_FALSE(one.verify_attached().ok());
      CHECK(two.verify_attached().ok());  // the neighbour does not notice
    }
    check_nothing_left(node, node.cell(0));
    CHECK(disconnect(node.cell(0), node.run_dir).empty());
    CHECK(disconnect(node.cell(2), node.run_dir).empty());  // never existed
    CHECK(disconnect(node.cell(1), node.run_dir).empty());
    check_nothing_left(node, node.cell(1));
    const NetworkedCell again = connect(node, router, 0);  // same slot, same names
    CHECK(again.verify_attached().ok());
  }
}

TEST_CASE("with every object of the daemon gone the filter still denies, and names suffice to account and remove") {
  for (const Attach attach : {Attach::kTcx, Attach::kClsact}) {
    CAPTURE(to_string(attach));
    const TestNode node;
    base::FileId before;
    {
      const Router router = node.open(attach);
      before = *base::file_id(router.netns_path());
      (void)connect(node, router);
    }
    const auto cell_ns = open_netns(cell_netns(node.run_dir, node.cell(0)));
    REQUIRE(cell_ns.ok());
    send_all(cell_ns->get(), {test::packet(), test::packet(), test::packet()});
    auto facts = settled(node, 0, 7);
    CHECK(facts.counted == 7);
    CHECK(counter(facts, "default-deny") == 5);

    const Router adopted = node.open(attach);
    CHECK(*base::file_id(adopted.netns_path()) == before);
    send_all(cell_ns->get(), {test::packet()});
    CHECK(settled(node, 0, 8).counted == 8);
    CHECK(router_received(adopted) == 0);
    CHECK(disconnect(node.cell(0), node.run_dir).empty());
    check_nothing_left(node, node.cell(0));
  }
}

TEST_CASE("disconnect copes with every part that a crash may leave") {
  const TestNode node;
  const Router router = node.open(Attach::kAuto);
  const model::CellName name = node.cell(0);

  const std::string file = cell_netns(node.run_dir, name);
  REQUIRE(base::open_file(file, O_RDONLY | O_CREAT | O_EXCL, 0400).ok());  // before the mount
  CHECK(disconnect(name, node.run_dir).empty());
  check_nothing_left(node, name);

  REQUIRE(on_throwaway_thread([&]() -> base::Status {  // before the link
            const base::UniqueFd ns = CR_TRY(new_netns_here());
            return bind_netns(ns.get(), file);
          })
              .ok());
  CHECK(disconnect(name, node.run_dir).empty());
  check_nothing_left(node, name);

  REQUIRE(base::make_dir(pin_dir(node.run_dir, name), 0700).ok());  // before the pins
  CHECK(disconnect(name, node.run_dir).empty());
  check_nothing_left(node, name);

  { (void)connect(node, router); }  // the namespace's mount is gone, the rest is there
  REQUIRE(remove_netns(file).ok());
  CHECK(disconnect(name, node.run_dir).empty());
  check_nothing_left(node, name);

  { (void)connect(node, router); }  // the router's name is gone, and with it the way to the link
  REQUIRE(remove_netns(router_netns(node.run_dir, node.tag)).ok());
  CHECK(disconnect(name, node.run_dir).empty());
  CHECK_FALSE(base::exists(file));
  CHECK_FALSE(base::exists(pin_dir(node.run_dir, name)));
}

TEST_CASE("there is no IPv6 in either namespace, and the router forwards nothing it was not told to") {
  const TestNode node;
  const Router router = node.open(Attach::kAuto);
  const NetworkedCell cell = connect(node, router);
  const auto ns = open_netns(router.netns_path());
  REQUIRE(ns.ok());
  for (const int fd : {cell.netns_fd(), ns->get()}) {
    const auto addresses = in_netns(fd, [] { return base::read_file("/proc/thread-self/net/if_inet6", 65536); });
    if (addresses.ok()) {
      CHECK(addresses->empty());
    }
  }
}

int main(int argc, char** argv) {
  if (::geteuid() != 0) {
    std::puts("skipped: needs root (network namespaces, mounts, BPF)");
    return 77;
  }
  if (!base::exists("/usr/sbin/nft") || !base::exists("/usr/sbin/tc")) {
    std::puts("skipped: needs /usr/sbin/nft and /usr/sbin/tc");
    return 77;
  }
  if (::unshare(CLONE_NEWNS) != 0 || ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    std::puts("skipped: needs a mount namespace of its own");
    return 77;
  }
  doctest::Context context(argc, argv);
  return context.run();
}
