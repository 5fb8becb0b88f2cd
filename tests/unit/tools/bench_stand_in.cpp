// tools/bench/stand_in against the real host's end of the protocol: what the shim will be told, without a shim.
#include <doctest/doctest.h>

#include "shim/wire/host_session.hpp"
#include "tools/bench/stand_in/guest.hpp"
#include "tools/bench/stand_in/qmp.hpp"

using namespace cellrund;

namespace {

// Bytes to and fro until both are silent; what the host makes of them.
std::vector<wire::Event> converse(wire::HostSession& host, bench::StandInGuest& guest) {
  std::vector<wire::Event> events;
  while (!host.output().empty()) {
    const base::BytesView out = host.output();
    REQUIRE(guest.feed(out).ok());
    host.consumed(out.size());
    for (wire::Event& event : host.feed(guest.take_output())) {
      events.push_back(std::move(event));
    }
  }
  return events;
}

}  // namespace

TEST_CASE("the stand-in's guest answers each step, and writes what /bin/echo would") {
  auto host = wire::HostSession::create(wire::HostSession::Mode::kMicrovm);
  REQUIRE(host.ok());
  bench::StandInGuest guest(wire::Nonce{7});

  auto events = converse(*host, guest);
  REQUIRE(events.size() == 1);
  CHECK(std::holds_alternative<wire::HelloEvent>(events[0]));

  wire::Workload workload;
  workload.args = {"/bin/echo", "4", "2"};
  REQUIRE(host->send_workload(workload).ok());
  events = converse(*host, guest);
  REQUIRE(events.size() == 1);
  CHECK(std::holds_alternative<wire::ReadyEvent>(events[0]));

  REQUIRE(host->start().ok());
  events = converse(*host, guest);
  REQUIRE(events.size() == 3);
  CHECK(std::holds_alternative<wire::StartedEvent>(events[0]));
  REQUIRE(std::holds_alternative<wire::OutputEvent>(events[1]));
  CHECK(base::as_text(std::get<wire::OutputEvent>(events[1]).data) == "4 2\n");
  REQUIRE(std::holds_alternative<wire::ExitEvent>(events[2]));
  CHECK(std::get<wire::ExitEvent>(events[2]).exit.value == 0);
}

TEST_CASE("a workload of more than one piece is waited for") {
  auto host = wire::HostSession::create(wire::HostSession::Mode::kMicrovm);
  REQUIRE(host.ok());
  bench::StandInGuest guest(wire::Nonce{7});
  (void)converse(*host, guest);
  wire::Workload workload;
  workload.args = {"/bin/echo", std::string(2 * wire::kMaxPayload, 'x')};
  REQUIRE(host->send_workload(workload).ok());
  const auto events = converse(*host, guest);
  REQUIRE(events.size() == 1);
  CHECK(std::holds_alternative<wire::ReadyEvent>(events[0]));
}

TEST_CASE("START for another guest and a frame that only guests send are refused") {
  bench::StandInGuest guest(wire::Nonce{7});
  base::Bytes bytes;
  wire::append_frame(bytes, wire::FrameType::kStart, wire::encode(wire::Start{wire::Nonce{8}, 0}));
  CHECK(!guest.feed(bytes).ok());
  bytes.clear();
  wire::append_frame(bytes, wire::FrameType::kReady, {});
  CHECK(!guest.feed(bytes).ok());
}

TEST_CASE("its QMP greets as no QEMU, and lets the guest speak after cont only") {
  bench::StandInQmp qmp;
  CHECK(qmp.take_output().find("no QEMU") != std::string::npos);
  qmp.feed("{\"execute\":\"qmp_capab");
  CHECK(qmp.take_output().empty());
  qmp.feed("ilities\"}\n");
  CHECK(qmp.take_output() == "{\"return\": {}}\r\n");
  CHECK(!qmp.running());
  qmp.feed("{\"execute\":\"cont\"}\n");
  CHECK(qmp.running());
}
