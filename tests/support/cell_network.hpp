// A node's network for one test, what a cell in it sends, and what is left of it afterwards. Needs root.
#pragma once

#include <bpf/bpf.h>
#include <doctest/doctest.h>
#include <linux/bpf.h>
#include <linux/if_packet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include "base/file.hpp"
#include "base/process.hpp"
#include "netpolicy/canary.hpp"
#include "netpolicy/names.hpp"
#include "netpolicy/netns.hpp"
#include "netpolicy/router.hpp"
#include "netpolicy/rtnl.hpp"

namespace cellrund::test {

using namespace cellrund::netpolicy;
using namespace std::chrono_literals;

class Recorder final : public model::Journal {
 public:
  base::Status intend(const model::Inventory& batch) override {
    intended.insert(intended.end(), batch.begin(), batch.end());
    return base::ok();
  }
  base::Status created(const model::InventoryItem& item) override {
    items.push_back(item);
    return base::ok();
  }
  model::Inventory intended, items;
};

// A node of its own: tag and run folder carry our pid; all of it goes at the end, also after a failed check.
struct TestNode {
  explicit TestNode(unsigned number = 0) {  // of several nodes at a time, each has another
    char text[9];
    std::snprintf(text, sizeof text, "%08x", static_cast<unsigned>(::getpid()) + (number << 28U));
    tag.value = text;
    run_dir = "/tmp/net-test-" + tag.value;
    REQUIRE(base::make_dirs(run_dir, 0700).ok());
  }
  TestNode(const TestNode&) = delete;
  TestNode& operator=(const TestNode&) = delete;
  TestNode(TestNode&&) = delete;
  TestNode& operator=(TestNode&&) = delete;
  ~TestNode() {
    for (std::uint32_t slot = 0; slot < 4; ++slot) {
      CHECK(disconnect(cell(slot), run_dir).empty());
    }
    CHECK(Router::destroy(run_dir, tag).empty());
    CHECK(base::remove_dir(run_dir).ok());
  }

  [[nodiscard]] model::CellName cell(std::uint32_t slot) const {
    return {tag, "0199c1f2-7b1e-7c3a-9d2e-00000000000" + std::to_string(slot), slot};
  }
  [[nodiscard]] Router open(Attach attach, const std::string& uplink = "") const {
    auto router = Router::open({.run_dir = run_dir, .node = tag, .attach = attach, .uplink = uplink});
    REQUIRE_MESSAGE(router.ok(), (router.ok() ? "" : router.error().message()));
    return std::move(*router);
  }

  model::NodeTag tag;
  std::string run_dir;
};

inline NetworkedCell connect(const TestNode& node, const Router& router, std::uint32_t slot = 0) {
  Recorder journal;
  auto cell = router.connect(node.cell(slot), journal);
  REQUIRE_MESSAGE(cell.ok(), (cell.ok() ? "" : cell.error().message()));
  return std::move(*cell);
}

// Sends raw frames on a link of the namespace.
inline void send_all(int netns_fd, const std::vector<base::Bytes>& frames, const char* link = kCellInterface) {
  const auto sent = in_netns(netns_fd, [&]() -> base::Status {
    const base::UniqueFd socket = CR_TRY(open_packet_socket());
    Rtnl rtnl = CR_TRY(Rtnl::open());
    sockaddr_ll to{};
    to.sll_family = AF_PACKET;
    to.sll_ifindex = static_cast<int>(CR_TRY(rtnl.link_index(link)));
    for (const base::Bytes& frame : frames) {
      if (::sendto(socket.get(), frame.data(), frame.size(), 0, reinterpret_cast<const sockaddr*>(&to), sizeof to) <
          0) {
        return base::Error::from_errno("send");
      }
    }
    return base::ok();
  });
  REQUIRE_MESSAGE(sent.ok(), (sent.ok() ? "" : sent.error().message()));
}

// Reads the account until it holds at least `counted` packets: frames may still be in softirq when send() returns.
inline model::EgressFacts settled(const TestNode& node, std::uint32_t slot, std::uint64_t counted) {
  const base::Deadline deadline = base::Deadline::after(5s);
  while (true) {
    auto facts = read_facts(node.cell(slot), node.run_dir);
    REQUIRE(facts.ok());
    if (facts->counted >= counted || deadline.expired()) {
      return std::move(*facts);
    }
    std::this_thread::yield();
  }
}

inline std::uint64_t counter(const model::EgressFacts& facts, std::string_view reason) {
  for (const auto& [name, packets] : facts.counters) {
    if (name == reason) {
      return packets;
    }
  }
  return 0;
}

// "InReceives" of the router's IP layer: every packet that got behind a filter, before any firewall.
inline std::uint64_t router_received(const Router& router) {
  const auto ns = open_netns(router.netns_path());
  REQUIRE(ns.ok());
  const auto text = in_netns(ns->get(), [] { return base::read_file("/proc/thread-self/net/snmp", 65536); });
  REQUIRE(text.ok());
  const std::size_t values = text->find("Ip: ", text->find("Ip: ") + 1);
  unsigned long long forwarding = 0, ttl = 0, received = 0;
  REQUIRE(std::sscanf(text->c_str() + values, "Ip: %llu %llu %llu", &forwarding, &ttl, &received) == 3);
  return received;
}

// Packets in one of the named counters of the router's nftables table.
inline std::uint64_t nft_counter(const Router& router, const std::string& name) {
  const auto ns = open_netns(router.netns_path());
  REQUIRE(ns.ok());
  const auto listed = in_netns(ns->get(), [&] {
    base::SpawnOptions command;
    command.argv = {"/usr/sbin/nft", "list", "counter", "inet", "cellrun", name};
    return base::run_command(command, "", base::Deadline::after(10s));
  });
  REQUIRE(listed.ok());
  unsigned long long packets = 0;
  const std::size_t at = listed->out.find("packets ");
  REQUIRE(at != std::string::npos);
  REQUIRE(std::sscanf(listed->out.c_str() + at, "packets %llu", &packets) == 1);
  return packets;
}

// Ids of live BPF objects whose name starts with the cell's prefix.
template <typename Info>
std::size_t objects_named(const std::string& prefix, int (*next)(std::uint32_t, std::uint32_t*),
                          int (*open)(std::uint32_t)) {
  std::size_t found = 0;
  std::uint32_t id = 0;
  while (next(id, &id) == 0) {
    const base::UniqueFd fd(open(id));
    Info info{};
    std::uint32_t size = sizeof info;
    if (fd && ::bpf_obj_get_info_by_fd(fd.get(), &info, &size) == 0 &&
        std::string_view(info.name).starts_with(prefix)) {
      ++found;
    }
  }
  return found;
}

inline std::size_t bpf_objects(const model::CellName& name) {
  const std::string prefix = name.bpf_prefix() + "_";
  return objects_named<bpf_prog_info>(prefix, ::bpf_prog_get_next_id, ::bpf_prog_get_fd_by_id) +
         objects_named<bpf_map_info>(prefix, ::bpf_map_get_next_id, ::bpf_map_get_fd_by_id);
}

// A tcx link that lost its last holder is detached by a kernel worker.
inline void wait_hook_empty(const Router& router, std::uint32_t ifindex) {
  const auto ns = open_netns(router.netns_path());
  REQUIRE(ns.ok());
  const base::Deadline deadline = base::Deadline::after(5s);
  while (!deadline.expired()) {
    const auto programs = in_netns(ns->get(), [&]() -> base::Result<std::uint32_t> {
      LIBBPF_OPTS(bpf_prog_query_opts, options);
      constexpr auto kTcxIngress = static_cast<bpf_attach_type>(46);
      if (::bpf_prog_query_opts(static_cast<int>(ifindex), kTcxIngress, &options) != 0) {
        return base::Error::from_errno("query");
      }
      return options.prog_cnt;
    });
    REQUIRE(programs.ok());
    if (*programs == 0) {
      return;
    }
  }
  FAIL("the link is still attached");
}

inline bool mounted(const std::string& path) {
  const auto mounts = base::read_file("/proc/self/mountinfo", 4U << 20U);
  REQUIRE(mounts.ok());
  return mounts->find(path) != std::string::npos;
}

inline void check_nothing_left(const TestNode& node, const model::CellName& name) {
  CHECK_FALSE(base::exists(cell_netns(node.run_dir, name)));
  CHECK_FALSE(base::exists(pin_dir(node.run_dir, name)));
  CHECK_FALSE(mounted(name.marker()));
  const auto ns = open_netns(router_netns(node.run_dir, node.tag));
  if (ns.ok()) {
    const auto link = in_netns(ns->get(), [&]() -> base::Result<std::uint32_t> {
      Rtnl rtnl = CR_TRY(Rtnl::open());
      return rtnl.link_index(name.host_link());
    });
    CHECK_FALSE(link.ok());
    CHECK(link.error().code() == base::Errc::kNotFound);
  }
  // The kernel frees BPF objects after RCU grace periods.
  const base::Deadline deadline = base::Deadline::after(5s);
  while (bpf_objects(name) != 0 && !deadline.expired()) {
    std::this_thread::yield();
  }
  CHECK(bpf_objects(name) == 0);
}

}  // namespace cellrund::test
