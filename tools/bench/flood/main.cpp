// bench-flood FOLDER filter|drop BYTES: one sample of a neighbour's throughput. A cell floods at 100,000 denied packets
// a second; meanwhile another cell sends BYTES over one TCP connection to a host behind the router. In front of the
// flood stands the cell's filter, or in its place a program that drops everything unread. The sample's clock runs from
// the first byte of the transfer to its last; the network lives in FOLDER and in namespaces of its own, and ends with
// the sample.
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <charconv>
#include <cstdio>
#include <string>
#include <string_view>
#include <thread>

#include "admit/egress_grants.hpp"
#include "base/clock.hpp"
#include "netpolicy/attach.hpp"
#include "netpolicy/filter.hpp"
#include "netpolicy/names.hpp"
#include "netpolicy/netns.hpp"
#include "netpolicy/router.hpp"
#include "netpolicy/rtnl.hpp"
#include "tools/bench/flood/sender.hpp"
#include "tools/bench/sample.hpp"

namespace {

using namespace cellrund;
using namespace cellrund::netpolicy;
using base::Error;

constexpr std::uint32_t kSinkRouter = 0xc6336401;  // 198.51.100.1
constexpr std::uint32_t kSink = 0xc6336402;        // 198.51.100.2
constexpr std::uint16_t kPort = 443;
constexpr auto kPatience = std::chrono::seconds(60);

class NoJournal final : public model::Journal {
 public:
  base::Status intend(const model::Inventory& /*batch*/) override { return base::ok(); }
  base::Status created(const model::InventoryItem& /*item*/) override { return base::ok(); }
};

// The network's folder and names; all of it goes with the object.
class Place {
 public:
  explicit Place(std::string folder) : folder_(std::move(folder)) {
    std::array<char, 9> text{};
    (void)std::snprintf(text.data(), text.size(), "%08x", static_cast<unsigned>(::getpid()));
    tag_.value = text.data();
  }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;
  Place(Place&&) = delete;
  Place& operator=(Place&&) = delete;
  ~Place() {
    for (const std::uint32_t slot : {0U, 1U}) {
      tell(disconnect(cell(slot), folder_));
    }
    tell(Router::destroy(folder_, tag_));
    if (const auto removed = base::remove_dir(folder_); !removed.ok()) {
      tell({removed.error().message()});
    }
  }
  [[nodiscard]] base::Result<Router> open() const {
    CR_CHECK(base::make_dirs(folder_, 0700));
    return Router::open({.run_dir = folder_, .node = tag_, .attach = Attach::kTcx});
  }
  [[nodiscard]] model::CellName cell(std::uint32_t slot) const {
    return {tag_, "0199c1f2-7b1e-7c3a-9d2e-00000000000" + std::to_string(slot), slot};
  }
  [[nodiscard]] const std::string& folder() const noexcept { return folder_; }

 private:
  static void tell(const std::vector<std::string>& failures) {
    for (const std::string& failure : failures) {
      std::fprintf(stderr, "bench-flood: %s\n", failure.c_str());
    }
  }
  std::string folder_;
  model::NodeTag tag_;
};

// A host on the router's uplink: its namespace.
base::Result<base::UniqueFd> make_sink(const Router& router) {
  return on_throwaway_thread([&]() -> base::Result<base::UniqueFd> {
    base::UniqueFd netns = CR_TRY(new_netns_here());
    Rtnl inside = CR_TRY(Rtnl::open());
    const base::UniqueFd outside_ns = CR_TRY(open_netns(router.netns_path()));
    CR_CHECK(enter_netns(outside_ns.get()));
    Rtnl outside = CR_TRY(Rtnl::open());
    CR_CHECK(
        outside.create_veth({kUplink, {2, 0x43, 0x52, 0, 1, 1}, "sink0", {2, 0x43, 0x52, 0, 1, 2}, netns.get(), kMtu}));
    const std::uint32_t out = CR_TRY(outside.link_index(kUplink));
    const std::uint32_t in = CR_TRY(inside.link_index("sink0"));
    CR_CHECK(outside.add_address(out, kSinkRouter, 24));
    CR_CHECK(inside.add_address(in, kSink, 24));
    CR_CHECK(outside.set_up(out));
    CR_CHECK(inside.set_up(in));
    CR_CHECK(inside.add_default_route(in, kSinkRouter));
    return netns;
  });
}

sockaddr_in sink_address() {
  sockaddr_in out{};
  out.sin_family = AF_INET;
  out.sin_port = htons(kPort);
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

base::Status drop_instead(const std::string& pins) {
  const base::UniqueFd drop = CR_TRY(load_drop_all());
  for (const char* name : {kPinLinkOut, kPinLinkIn}) {
    const base::UniqueFd link = CR_TRY(open_pin(pins + "/" + name));
    if (::bpf_link_update(link.get(), drop.get(), nullptr) != 0) {
      return Error::from_errno("put a plain drop in the filter's place");
    }
  }
  return base::ok();
}

// The time that `bytes` take from one end to the other.
base::Status transfer(int from, int to, std::uint64_t bytes, bench::Sample& sample) {
  const std::string block(64UL * 1024, 'b');
  std::string buffer(256UL * 1024, '\0');
  sample.start_ns = bench::now_ns();
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
    sample.first_byte_ns = sample.first_byte_ns == 0 ? bench::now_ns() : sample.first_byte_ns;
  }
  sample.end_ns = bench::now_ns();
  return base::ok();
}

base::Result<bench::Sample> take(const Place& place, bool filtered, std::uint64_t bytes) {
  const Router router = CR_TRY(place.open());
  const base::UniqueFd sink = CR_TRY(make_sink(router));
  NoJournal journal;
  const NetworkedCell flooding = CR_TRY(router.connect(place.cell(0), journal));
  model::EgressPolicy egress{{{*model::parse_ipv4_prefix("198.51.100.2/32"), {kPort}, model::Transport::kTcp, {}}}, {}};
  auto relaxations = admit::EgressGrants::from(std::vector<std::string>{"public"}).relaxations_for(egress);
  const NetworkedCell neighbour = CR_TRY(router.connect(
      place.cell(1), journal, {.egress = egress, .relaxations = relaxations, .expect_blocked = {}, .on_alarm = {}}));
  if (!filtered) {
    CR_CHECK(drop_instead(pin_dir(place.folder(), place.cell(0))));
  }
  const base::UniqueFd listener = CR_TRY(listen_in(sink.get()));
  const base::UniqueFd from = CR_TRY(connect_from(neighbour.netns_fd()));
  const base::UniqueFd to(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));

  std::atomic<bool> stop{false};
  base::Result<bench::Flooded> flooded = bench::Flooded{};
  bench::Sample sample;
  base::Status done = base::ok();
  {
    const std::jthread sender([&] {
      flooded = in_netns(flooding.netns_fd(), [&] {
        return bench::send_flood({.source = 0x64400001, .packets = ~std::uint64_t{0}, .targets = 1}, stop);
      });
    });
    done = transfer(from.get(), to.get(), bytes / 8, sample);  // until the flood and the connection are steady
    if (done.ok()) {
      sample = {};
      done = transfer(from.get(), to.get(), bytes, sample);
    }
    stop = true;
  }
  CR_CHECK(std::move(done));
  const bench::Flooded sent = CR_TRY(std::move(flooded));
  sample.details.set("flooded", static_cast<std::int64_t>(sent.sent));
  sample.details.set("refusedByLink", static_cast<std::int64_t>(sent.refused));
  return sample;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view side = argc == 4 ? argv[2] : "";
  const std::string_view digits = argc == 4 ? argv[3] : "";
  std::uint64_t bytes = 0;
  (void)std::from_chars(digits.data(), digits.data() + digits.size(), bytes);
  if ((side != "filter" && side != "drop") || bytes == 0) {
    std::fputs("usage: bench-flood FOLDER filter|drop BYTES\n", stderr);
    return 64;
  }
  const Place place(argv[1]);
  const auto sample = take(place, side == "filter", bytes);
  if (!sample.ok()) {
    std::fprintf(stderr, "bench-flood: %s\n", sample.error().message().c_str());
    return 1;
  }
  std::printf("%s\n", base::json::write(bench::to_json(*sample)).c_str());
  return 0;
}
