// What one connection may do and see, by the peer's credentials.
#include "daemon/session.hpp"

#include <doctest/doctest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <thread>

#include "api/frame.hpp"
#include "base/fd.hpp"
#include "base/file.hpp"
#include "crypto/digest.hpp"
#include "daemon/refusal_budget.hpp"
#include "fake_node.hpp"

using namespace cellrund;
using namespace std::chrono_literals;
using daemon_test::FakeNode;
using daemon_test::kMine;
using daemon_test::kOther;

namespace {

constexpr std::uint32_t kUser = 4242;

// One session on a thread, and the peer's end of its connection.
class Peer {
 public:
  explicit Peer(FakeNode& node, std::uint32_t uid = kUser, daemon::Door door = daemon::Door::kOrdinary,
                daemon::Config::Limits limits = {})
      : limits_(limits), refusals_(limits.refusals_per_second),
        context_{node, refusals_, limits_, "1.2.3", "node-1", stopping_},
        pair_(base::make_socket_pair(SOCK_STREAM).value()), thread_([this, uid, door] {
          daemon::Session(context_, pair_.ours.get(), {uid, uid, 1}, door).run();
          pair_.ours.reset();
        }) {}
  ~Peer() {
    stopping_ = true;
    pair_.theirs.reset();
  }
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;
  Peer(Peer&&) = delete;
  Peer& operator=(Peer&&) = delete;

  void send(const api::Request& request) const {
    REQUIRE(api::write_frame(pair_.theirs.get(), api::encode(request), base::Deadline::after(5s)).ok());
  }
  // The next response; nullopt when the connection was closed.
  [[nodiscard]] std::optional<api::Response> receive() const {
    auto frame = api::read_frame(pair_.theirs.get(), api::kMaxResponseBytes, 5s, 5s);
    if (!frame.ok() || !frame->has_value()) {
      return std::nullopt;
    }
    return api::decode_response(base::as_bytes(**frame)).value();
  }
  template <typename T>
  [[nodiscard]] T ask(const api::Request& request) const {
    send(request);
    std::optional<api::Response> response = receive();
    REQUIRE(response.has_value());
    REQUIRE(std::holds_alternative<T>(*response));
    return std::get<T>(std::move(*response));
  }
  [[nodiscard]] int fd() const { return pair_.theirs.get(); }

 private:
  daemon::Config::Limits limits_;
  daemon::RefusalBudget refusals_;
  std::atomic<bool> stopping_ = false;
  daemon::SessionContext context_;
  base::SocketPair pair_;
  std::jthread thread_;
};

}  // namespace

TEST_CASE("a submission is accepted, known again, or refused with everything a client needs") {
  FakeNode node;
  const Peer peer(node);
  CHECK_FALSE(peer.ask<api::Submitted>(api::Submit{"x"}).already_known);
  CHECK(peer.ask<api::Submitted>(api::Submit{"x"}).already_known);
  const auto failure = peer.ask<api::Failure>(api::Submit{"refuse"});
  CHECK(failure.reason == model::Reason::kExpired);
  CHECK(failure.hint == "sign a new one");
  CHECK(failure.field == "metadata.expiresAt");
  CHECK_FALSE(failure.retryable);
}

TEST_CASE("a node that cannot write says so, and that is no refusal") {
  FakeNode node;
  node.change([](FakeNode::State& state) { state.disk_full = true; });
  daemon::Config::Limits limits;
  limits.refusals_per_second = 1;
  const Peer peer(node, kUser, daemon::Door::kOrdinary, limits);
  for (int i = 0; i < 5; ++i) {
    const auto failure = peer.ask<api::Failure>(api::Submit{"x"});
    CHECK(failure.code == base::Errc::kDataLoss);
    CHECK(failure.reason == model::Reason::kNone);
  }
}

TEST_CASE("whoever follows a job that can no longer be closed is told why, after everything that is known of it") {
  for (const bool whole_ledger : {true, false}) {
    CAPTURE(whole_ledger);
    FakeNode node;
    node.add(kMine, kUser);
    node.change([](FakeNode::State& state) { state.jobs[kMine].out = "so far"; });
    const Peer watcher(node);
    const Peer reader(node);
    watcher.send(api::Watch{kMine});
    reader.send(api::Logs{kMine, 0, 0, true});
    CHECK(std::get<api::Job>(*watcher.receive()).uid == kMine);
    CHECK(std::get<api::LogChunk>(*reader.receive()).data == "so far");
    node.change([&](FakeNode::State& state) {
      state.disk_full = whole_ledger;
      state.jobs[kMine].view.unsealed = whole_ledger ? "" : "the ledger stopped";
      state.jobs[kMine].view.version += whole_ledger ? 0 : 1;
    });
    if (!whole_ledger) {
      CHECK(std::get<api::Job>(*watcher.receive()).uid == kMine);  // the change itself
    }
    for (const Peer* peer : {&watcher, &reader}) {
      const auto response = peer->receive();
      REQUIRE(response.has_value());
      const auto* failure = std::get_if<api::Failure>(&*response);
      REQUIRE(failure != nullptr);
      CHECK(failure->code == base::Errc::kDataLoss);
      CHECK(failure->message.find("the ledger stopped") != std::string::npos);
      CHECK(failure->uid == kMine);
    }
    CHECK(watcher.ask<api::Job>(api::Get{kMine}).uid == kMine);  // the connection goes on
    reader.send(api::Logs{kMine, 0, 0, false});
    CHECK(std::holds_alternative<api::LogChunk>(*reader.receive()));
    CHECK(std::holds_alternative<api::End>(*reader.receive()));
  }
}

TEST_CASE("who follows a job's flows is told each decision once, until the job is closed") {
  FakeNode node;
  node.add(kMine, kUser);
  const auto see = [&](std::vector<model::EgressDecision> decisions) {
    node.change([&](FakeNode::State& state) {
      state.jobs[kMine].egress.decisions = std::move(decisions);
      ++state.jobs[kMine].view.version;
    });
  };
  const model::EgressDecision web{1, 2, 6, "198.51.100.7", 443, "denied", "default-deny", 4};
  const model::EgressDecision name{2, 3, 17, "198.51.100.7", 53, "denied", "default-deny", 1};
  see({web});
  const Peer peer(node);
  CHECK(peer.ask<api::Flows>(api::GetFlows{kMine, true}).egress.decisions.size() == 1);
  see({name, web});
  const auto second = std::get<api::Flows>(*peer.receive()).egress.decisions;
  REQUIRE(second.size() == 1);
  CHECK(second[0].port == 53);
  node.change([](FakeNode::State& state) {
    state.jobs[kMine].unfiltered = true;
    ++state.jobs[kMine].view.version;
  });
  node.change([](FakeNode::State& state) { state.jobs[kMine].unfiltered = false; });
  node.close(kMine);
  CHECK(std::holds_alternative<api::End>(*peer.receive()));
  CHECK(peer.ask<api::Flows>(api::GetFlows{kMine}).egress.decisions.size() == 2);  // and the connection goes on
  node.change([](FakeNode::State& state) { state.jobs[kMine].unfiltered = true; });
  CHECK(peer.ask<api::Failure>(api::GetFlows{kMine}).code == base::Errc::kFailedPrecondition);
}

TEST_CASE("above the budget of refusals the connection is closed, the node asked nothing, and the drop counted") {
  FakeNode node;
  daemon::Config::Limits limits;
  limits.refusals_per_second = 3;
  const Peer peer(node, kUser, daemon::Door::kOrdinary, limits);
  int refused = 0;
  for (int i = 0; i < 100; ++i) {
    if (!api::write_frame(peer.fd(), api::encode(api::Request(api::Submit{"refuse"})), base::Deadline::after(5s)).ok()) {
      break;
    }
    const auto response = peer.receive();
    if (!response || std::get<api::Failure>(*response).reason == model::Reason::kNone) {
      break;
    }
    ++refused;
  }
  CHECK(refused >= 3);
  CHECK(refused < 100);
  CHECK_FALSE(peer.receive().has_value());
  CHECK(node.snapshot().dropped[kUser] == 1);
  CHECK(node.snapshot().submissions == static_cast<std::uint64_t>(refused));
}

TEST_CASE("the budget refills with time and never above one second's worth") {
  daemon::RefusalBudget budget(2);
  CHECK(budget.reserve(1, 0));
  CHECK(budget.reserve(1, 0));
  CHECK_FALSE(budget.reserve(1, 0));
  CHECK(budget.reserve(2, 0));  // another user has a budget of its own
  CHECK(budget.reserve(1, 500'000'000));
  CHECK_FALSE(budget.reserve(1, 500'000'000));
  budget.give_back(1);
  CHECK(budget.reserve(1, 500'000'000));
  CHECK(budget.reserve(1, 3'600'000'000'000));
  CHECK(budget.reserve(1, 3'600'000'000'000));
  CHECK_FALSE(budget.reserve(1, 3'600'000'000'000));
}

TEST_CASE("outputs are listed once the job is closed, and come in pieces") {
  FakeNode node;
  node.add(kMine, kUser);
  const std::string bytes(700'000, 'b');
  node.change([&](FakeNode::State& state) {
    state.jobs[kMine].outputs.files = {{"d/f", bytes.size(), "sha256:00"}};
    state.jobs[kMine].output_bytes = bytes;
  });
  const Peer peer(node);
  CHECK(peer.ask<api::Failure>(api::GetOutputs{kMine}).code == base::Errc::kFailedPrecondition);
  node.close(kMine);
  CHECK(peer.ask<api::Outputs>(api::GetOutputs{kMine}).facts.files.at(0).path == "d/f");
  std::string got = peer.ask<api::OutputChunk>(api::ReadOutput{kMine, "d/f"}).data;
  CHECK(got.size() < bytes.size());
  while (true) {
    const auto next = peer.receive();
    REQUIRE(next.has_value());
    const auto* chunk = std::get_if<api::OutputChunk>(&*next);
    if (chunk == nullptr) {
      CHECK(std::holds_alternative<api::End>(*next));
      break;
    }
    CHECK(chunk->offset == got.size());
    got += chunk->data;
  }
  CHECK(got == bytes);
  CHECK(peer.ask<api::Failure>(api::ReadOutput{kMine, "other"}).code == base::Errc::kNotFound);
}

TEST_CASE("a peer sees the contents of its own jobs alone") {
  FakeNode node;
  node.add(kMine, kUser);
  node.add(kOther, kUser + 1);
  node.close(kOther);
  const Peer peer(node);
  const auto mine = peer.ask<api::Job>(api::Get{kMine});
  CHECK(mine.image == "registry.example/x@sha256:00");
  CHECK_FALSE(mine.foreign);
  for (const api::Request& request :
       {api::Request(api::Get{kOther}), api::Request(api::Watch{kOther, 0}), api::Request(api::Logs{kOther, 0, 0, false}),
        api::Request(api::Cancel{kOther}), api::Request(api::GetEvidence{kOther}), api::Request(api::GetFlows{kOther}),
        api::Request(api::GetFlows{kOther, true}), api::Request(api::GetOutputs{kOther}), api::Request(api::ReadOutput{kOther, "f"})}) {
    const auto failure = peer.ask<api::Failure>(request);
    CHECK(failure.code == base::Errc::kPermissionDenied);
    CHECK(failure.uid == kOther);
  }
  CHECK_FALSE(node.snapshot().jobs[kOther].cancelled);
  const auto list = peer.ask<api::JobList>(api::List{0});
  REQUIRE(list.jobs.size() == 2);
  CHECK(list.jobs[0].image == "registry.example/x@sha256:00");
  CHECK(list.jobs[1].uid == kOther);
  CHECK(list.jobs[1].foreign);
  CHECK(list.jobs[1].image.empty());
  CHECK(list.jobs[1].spec_digest.empty());
  CHECK(list.jobs[1].outcome.message.empty());
}

TEST_CASE("root sees everything, and cancels as the operator what is not its own") {
  FakeNode node;
  node.add(kOther, kUser);
  const Peer root(node, 0);
  CHECK(root.ask<api::Job>(api::Get{kOther}).image == "registry.example/x@sha256:00");
  (void)root.ask<api::Ack>(api::Cancel{kOther});
  CHECK(node.snapshot().jobs[kOther].by_operator);
}

TEST_CASE("an owner cancels as the user") {
  FakeNode node;
  node.add(kMine, kUser);
  const Peer peer(node);
  (void)peer.ask<api::Ack>(api::Cancel{kMine});
  CHECK(node.snapshot().jobs[kMine].cancelled);
  CHECK_FALSE(node.snapshot().jobs[kMine].by_operator);
}

TEST_CASE("draining is for the admin socket") {
  FakeNode node;
  const Peer ordinary(node, 0);
  CHECK(ordinary.ask<api::Failure>(api::SetDraining{true}).code == base::Errc::kPermissionDenied);
  CHECK_FALSE(node.snapshot().draining);
  const Peer admin(node, 0, daemon::Door::kAdmin);
  (void)admin.ask<api::Ack>(api::SetDraining{true});
  CHECK(ordinary.ask<api::Failure>(api::UseKillSwitch{api::KillSwitchAction::kEngage}).code == base::Errc::kPermissionDenied);
  CHECK(ordinary.ask<api::Failure>(api::UseKillSwitch{}).code == base::Errc::kPermissionDenied);
  CHECK(admin.ask<api::KillSwitch>(api::UseKillSwitch{api::KillSwitchAction::kEngage}).engaged);
  CHECK(admin.ask<api::KillSwitch>(api::UseKillSwitch{}).engaged);
  CHECK_FALSE(admin.ask<api::KillSwitch>(api::UseKillSwitch{api::KillSwitchAction::kRelease}).engaged);
  CHECK(admin.ask<api::Capacity>(api::GetCapacity{}).draining);
}

TEST_CASE("an unknown job and a name that is no uid are told apart") {
  FakeNode node;
  const Peer peer(node);
  CHECK(peer.ask<api::Failure>(api::Get{kMine}).code == base::Errc::kNotFound);
  CHECK(peer.ask<api::Failure>(api::Get{"../../etc/passwd"}).code == base::Errc::kInvalidArgument);
  CHECK(peer.ask<api::Failure>(api::Get{""}).code == base::Errc::kInvalidArgument);
}

TEST_CASE("evidence comes when it is sealed") {
  FakeNode node;
  node.add(kMine, kUser);
  const Peer peer(node);
  CHECK(peer.ask<api::Failure>(api::GetEvidence{kMine}).code == base::Errc::kFailedPrecondition);
  node.close(kMine);
  CHECK(peer.ask<api::EvidenceEnvelope>(api::GetEvidence{kMine}).envelope == "{}");
}

TEST_CASE("a watch sends each change and ends with the job") {
  FakeNode node;
  node.add(kMine, kUser);
  const Peer peer(node);
  peer.send(api::Watch{kMine, 0});
  CHECK(std::get<api::Job>(*peer.receive()).state == model::State::kAccepted);
  node.change([](FakeNode::State& state) {
    state.jobs[kMine].view.state = model::State::kRunning;
    ++state.jobs[kMine].view.version;
  });
  CHECK(std::get<api::Job>(*peer.receive()).state == model::State::kRunning);
  node.close(kMine);
  CHECK(std::get<api::Job>(*peer.receive()).closed);
  CHECK(std::holds_alternative<api::End>(*peer.receive()));
  CHECK(peer.ask<api::Pong>(api::Ping{}).node_id == "node-1");  // the connection goes on
}

TEST_CASE("logs follow both streams byte for byte until the job is closed") {
  FakeNode node;
  node.add(kMine, kUser);
  const std::string bytes("a\0\xff\n", 4);
  node.change([&](FakeNode::State& state) { state.jobs[kMine].out = "old" + bytes; });
  const Peer peer(node);
  peer.send(api::Logs{kMine, 3, 0, true});
  auto chunk = std::get<api::LogChunk>(*peer.receive());
  CHECK(chunk.data == bytes);
  CHECK(chunk.offset == 3);
  CHECK(chunk.stream == api::Stream::kStdout);
  node.change([](FakeNode::State& state) { state.jobs[kMine].err = "oops"; });
  chunk = std::get<api::LogChunk>(*peer.receive());
  CHECK(chunk.data == "oops");
  CHECK(chunk.stream == api::Stream::kStderr);
  node.change([](FakeNode::State& state) { state.jobs[kMine].out += "last"; });
  node.close(kMine);
  CHECK(std::get<api::LogChunk>(*peer.receive()).data == "last");
  CHECK(std::holds_alternative<api::End>(*peer.receive()));
}

TEST_CASE("logs without follow end at the present end") {
  FakeNode node;
  node.add(kMine, kUser);
  node.change([](FakeNode::State& state) { state.jobs[kMine].out.assign(200'000, 'x'); });
  const Peer peer(node);
  peer.send(api::Logs{kMine, 0, 0, false});
  std::size_t total = 0;
  for (;;) {
    const api::Response response = peer.receive().value();
    if (std::holds_alternative<api::End>(response)) {
      break;
    }
    CHECK(std::get<api::LogChunk>(response).offset == total);
    total += std::get<api::LogChunk>(response).data.size();
  }
  CHECK(total == 200'000);
}

TEST_CASE("a log that was full says so at its end, also with time stamps") {
  FakeNode node;
  node.add(kMine, kUser);
  node.change([](FakeNode::State& state) {
    state.jobs[kMine].out = "some";
    state.jobs[kMine].log_cut = true;
  });
  const Peer peer(node);
  for (const bool timestamps : {false, true}) {
    peer.send(api::Logs{kMine, 0, 0, false, timestamps});
    const auto data = std::get<api::LogChunk>(*peer.receive());
    CHECK(data.data == "some");
    CHECK((data.wall_ns != 0) == timestamps);
    const auto mark = std::get<api::LogChunk>(*peer.receive());
    CHECK(mark.cut);
    CHECK(mark.data.empty());
    CHECK(std::holds_alternative<api::End>(*peer.receive()));
  }
}

TEST_CASE("garbage and oversized frames end the connection and are counted") {
  FakeNode node;
  SUBCASE("garbage") {
    const Peer peer(node);
    REQUIRE(api::write_frame(peer.fd(), "garbage", base::Deadline::after(5s)).ok());
    CHECK(std::get<api::Failure>(*peer.receive()).code == base::Errc::kInvalidArgument);
    CHECK_FALSE(peer.receive().has_value());
  }
  SUBCASE("oversized") {
    const Peer peer(node);
    REQUIRE(base::write_all(peer.fd(), base::as_bytes("\x7f\xff\xff\xff")).ok());
    CHECK(std::get<api::Failure>(*peer.receive()).code == base::Errc::kResourceExhausted);
    CHECK_FALSE(peer.receive().has_value());
  }
  CHECK(node.snapshot().dropped[kUser] == 1);
  CHECK(node.snapshot().submissions == 0);
}

TEST_CASE("a half-closed peer still gets its answers") {
  FakeNode node;
  node.add(kMine, kUser);
  const Peer peer(node);
  peer.send(api::Logs{kMine, 0, 0, true});
  REQUIRE(::shutdown(peer.fd(), SHUT_WR) == 0);
  node.change([](FakeNode::State& state) { state.jobs[kMine].out = "late"; });
  CHECK(std::get<api::LogChunk>(*peer.receive()).data == "late");
  node.close(kMine);
  CHECK(std::holds_alternative<api::End>(*peer.receive()));
  CHECK_FALSE(peer.receive().has_value());
}

TEST_CASE("files of a job come in pieces, in order, and are whole or not there") {
  std::string dir = "/tmp/cellrun-session.XXXXXX";
  REQUIRE(::mkdtemp(dir.data()) != nullptr);
  {
    const auto store = image::InputStore::create({.dir = dir + "/inputs", .max_archive_bytes = 100}).value();
    const auto files = [&] { return base::list_dir(dir + "/inputs/sha256", 10)->size(); };
    FakeNode node;
    node.inputs = store.get();
    // A file may be given to its uploader by root alone, so here that is ourselves.
    const Peer peer(node, ::geteuid());
    const std::string digest = crypto::digest_text(base::as_bytes("hello"));
    const auto piece = [&](std::uint64_t offset, std::string data) { return api::Upload{digest, 5, offset, std::move(data)}; };

    CHECK_FALSE(peer.ask<api::Uploaded>(piece(0, "")).whole);
    CHECK(peer.ask<api::Uploaded>(piece(0, "he")).received == 2);
    CHECK(peer.ask<api::Failure>(piece(3, "lo")).code == base::Errc::kInvalidArgument);  // a hole
    CHECK(peer.ask<api::Failure>(piece(2, "llo")).code == base::Errc::kInvalidArgument);  // that one was dropped
    CHECK(peer.ask<api::Uploaded>(piece(0, "he")).received == 2);
    (void)peer.ask<api::Pong>(api::Ping{});
    CHECK(peer.ask<api::Failure>(piece(2, "llo")).code == base::Errc::kInvalidArgument);  // so was that, by another request
    CHECK(peer.ask<api::Failure>(api::Upload{digest, 101, 0, ""}).code == base::Errc::kResourceExhausted);
    CHECK(peer.ask<api::Failure>(piece(0, "jello")).code == base::Errc::kDataLoss);
    CHECK(files() == 0);

    CHECK(peer.ask<api::Uploaded>(piece(0, "hel")).received == 3);
    CHECK(peer.ask<api::Uploaded>(piece(3, "lo")).whole);
    CHECK(files() == 1);
    CHECK(peer.ask<api::Uploaded>(piece(0, "")).whole);  // known: no piece is wanted
    CHECK(base::remove_file(dir + "/inputs/sha256/" + digest.substr(7)).ok());
  }
  for (const char* folder : {"/inputs/sha256", "/inputs/images", "/inputs", ""}) {
    CHECK(base::remove_dir(dir + folder).ok());
  }
}
