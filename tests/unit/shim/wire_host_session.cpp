#include <doctest/doctest.h>

#include <functional>
#include <string>

#include "shim/wire/host_session.hpp"

using namespace cellrund;
using namespace cellrund::wire;

namespace {

// A guest made of frames: reads what the host has to say, and says what a test wants.
class Guest {
 public:
  explicit Guest(HostSession::Mode mode = HostSession::Mode::kMicrovm) : host_(HostSession::create(mode).value()) {}

  std::vector<FrameType> read_host() {
    std::vector<FrameType> types;
    base::BytesView bytes = host_.output();
    const std::size_t size = bytes.size();
    while (const auto frame = parser_.next(bytes)) {
      types.push_back(frame->type);
      if (frame->type == FrameType::kHello) {
        host_nonce_ = decode_host_hello(frame->payload).value().nonce;
      } else if (frame->type == FrameType::kStart) {
        start_echo_ = decode_start(frame->payload).value().echo;
      } else if (frame->type == FrameType::kCredit) {
        credit_ += decode_credit(frame->payload).value().bytes;
      }
    }
    host_.consumed(size);
    return types;
  }
  std::vector<Event> say(FrameType type, base::BytesView payload = {}) {
    base::Bytes bytes;
    append_frame(bytes, type, payload);
    return host_.feed(bytes);
  }
  std::vector<Event> say_hello(std::uint32_t protocol = kProtocolVersion) {
    return say(FrameType::kHello, encode(GuestHello{protocol, nonce_, host_nonce_, "6.1.0-56-cloud-amd64"}));
  }
  std::vector<Event> say_of(std::uint32_t process, FrameType type, base::BytesView payload = {}) {
    return say(FrameType::kExec, encode(ExecFrame{process, type, payload}));
  }
  std::vector<Event> say_exit_of(std::uint32_t process, ExitKind kind, int value) {
    Exit exit;
    exit.kind = kind;
    exit.value = value;
    return say_of(process, FrameType::kExit, encode(exit));
  }
  std::vector<Event> say_exit(ExitKind kind, int value) {
    Exit exit;
    exit.kind = kind;
    exit.value = value;
    return say(FrameType::kExit, encode(exit));
  }
  static Workload workload() {
    Workload w;
    w.args = {"/bin/true"};
    return w;
  }
  // Brings the session up to `state`.
  void reach(HostSession::State state) {
    (void)read_host();
    if (state == HostSession::State::kHelloSent) return;
    (void)say_hello();
    if (state == HostSession::State::kHello) return;
    CHECK(host_.send_workload(workload()).ok());
    (void)read_host();
    if (state == HostSession::State::kWorkloadSent) return;
    (void)say(FrameType::kReady);
    if (state == HostSession::State::kReady) return;
    CHECK(host_.start().ok());
    (void)read_host();
    if (state == HostSession::State::kStartSent) return;
    (void)say(FrameType::kStarted);
    if (state == HostSession::State::kRunning) return;
    (void)say_exit(ExitKind::kExited, 0);
  }

  HostSession host_;
  FrameParser parser_;
  Nonce nonce_{9, 9, 9};
  Nonce host_nonce_{};
  Nonce start_echo_{};
  std::size_t credit_ = 0;
};

bool failed(const Guest& guest, const std::vector<Event>& events) {
  return guest.host_.state() == HostSession::State::kFailed && !events.empty() &&
         std::holds_alternative<ProtocolErrorEvent>(events.back()) && guest.host_.output().empty();
}

using Types = std::vector<FrameType>;
using State = HostSession::State;

}  // namespace

TEST_CASE("a whole life in order") {
  Guest guest;
  CHECK(guest.read_host() == Types{FrameType::kHello});
  auto events = guest.say_hello();
  REQUIRE(events.size() == 1);
  CHECK(std::get<HelloEvent>(events[0]).kernel_release == "6.1.0-56-cloud-amd64");
  CHECK_FALSE(guest.host_.start().ok());
  REQUIRE(guest.host_.send_workload(Guest::workload()).ok());
  CHECK(guest.read_host() == Types{FrameType::kEntropy, FrameType::kClock, FrameType::kWorkload});
  CHECK_FALSE(guest.host_.send_workload(Guest::workload()).ok());
  CHECK(std::holds_alternative<ReadyEvent>(guest.say(FrameType::kReady).at(0)));
  REQUIRE(guest.host_.start().ok());
  CHECK(guest.read_host() == Types{FrameType::kStart});
  CHECK(guest.start_echo_ == guest.nonce_);
  CHECK(std::holds_alternative<StartedEvent>(guest.say(FrameType::kStarted).at(0)));
  events = guest.say(FrameType::kStderr, base::as_bytes("oops"));
  CHECK(std::get<OutputEvent>(events.at(0)).stream == Stream::kStderr);
  CHECK(base::as_text(std::get<OutputEvent>(events.at(0)).data) == "oops");
  guest.host_.signal(15);
  CHECK(guest.read_host() == Types{FrameType::kSignal});
  events = guest.say_exit(ExitKind::kSignaled, 15);
  CHECK(std::get<ExitEvent>(events.at(0)).exit.value == 15);
  guest.host_.signal(15);  // nobody is there
  guest.host_.shutdown();
  guest.host_.shutdown();
  CHECK(guest.read_host() == Types{FrameType::kShutdown});
}

TEST_CASE("the process lane gets neither entropy nor clock") {
  Guest guest(HostSession::Mode::kProcess);
  guest.reach(State::kHello);
  REQUIRE(guest.host_.send_workload(Guest::workload()).ok());
  CHECK(guest.read_host() == Types{FrameType::kWorkload});
}

TEST_CASE("a workload of exactly one piece is followed by an empty last piece") {
  Guest guest(HostSession::Mode::kProcess);
  guest.reach(State::kHello);
  Workload workload = Guest::workload();
  workload.args.emplace_back();
  const std::size_t base_size = encode(workload).value().size();
  workload.args.back().assign(kMaxPayload - base_size, 'x');
  REQUIRE(encode(workload).value().size() == kMaxPayload);
  REQUIRE(guest.host_.send_workload(workload).ok());
  CHECK(guest.read_host() == Types{FrameType::kWorkload, FrameType::kWorkload});
}

TEST_CASE("only an answer to our own nonce is a hello") {
  Guest guest;
  guest.reach(State::kHelloSent);
  guest.host_nonce_[0] ^= 1U;
  CHECK(guest.say_hello().empty());  // of an earlier session
  CHECK(guest.say(FrameType::kStdout, base::as_bytes("stale")).empty());
  CHECK(guest.host_.feed(base::as_bytes("stale bytes of a frame")).empty());
  guest.host_nonce_[0] ^= 1U;
  CHECK(guest.say_hello().size() == 1);
  CHECK(guest.host_.state() == State::kHello);
}

TEST_CASE("the search for a hello ends") {
  Guest guest;
  guest.reach(State::kHelloSent);
  const base::Bytes noise(kMaxPayload, 0);
  std::vector<Event> events = guest.host_.feed(noise);
  CHECK(events.empty());
  CHECK(failed(guest, guest.host_.feed(noise)));
  Guest talker;
  talker.reach(State::kHelloSent);
  for (int i = 0; i < 20 && events.empty(); ++i) {
    events = talker.say(FrameType::kStdout, noise);
  }
  CHECK(failed(talker, events));
}

TEST_CASE("each frame out of its order ends the session") {
  const State states[] = {State::kHello, State::kWorkloadSent, State::kReady, State::kStartSent, State::kRunning, State::kExited};
  const auto is_allowed = [](State state, FrameType type) {
    switch (type) {
      case FrameType::kReady:
        return state == State::kWorkloadSent;
      case FrameType::kStarted:
        return state == State::kStartSent;
      case FrameType::kStdout:
      case FrameType::kStderr:
        return state == State::kRunning;
      default:
        return false;
    }
  };
  for (const State state : states) {
    for (int type = 1; type <= kLastFrameType; ++type) {
      if (is_allowed(state, static_cast<FrameType>(type))) {
        continue;
      }
      CAPTURE(static_cast<int>(state));
      CAPTURE(type);
      Guest guest;
      guest.reach(state);
      REQUIRE(guest.host_.state() == state);
      const bool with_byte = type == static_cast<int>(FrameType::kStdout) || type == static_cast<int>(FrameType::kStderr);
      CHECK(failed(guest, guest.say(static_cast<FrameType>(type), with_byte ? base::as_bytes("x") : base::BytesView())));
      CHECK(guest.say(FrameType::kReady).empty());  // dead for good
    }
  }
}

TEST_CASE("an exit fits the state it is said in") {
  struct Row {
    State state;
    ExitKind kind;
    int value;
    bool good;
  };
  const Row rows[] = {
      {State::kWorkloadSent, ExitKind::kSetupFailed, 0, true}, {State::kReady, ExitKind::kSetupFailed, 0, true},
      {State::kStartSent, ExitKind::kSetupFailed, 0, true},    {State::kRunning, ExitKind::kSetupFailed, 0, false},
      {State::kWorkloadSent, ExitKind::kExited, 0, false},     {State::kStartSent, ExitKind::kExited, 0, false},
      {State::kReady, ExitKind::kExecFailed, 127, false},      {State::kStartSent, ExitKind::kExecFailed, 127, true},
      {State::kStartSent, ExitKind::kSignaled, 9, true},       {State::kRunning, ExitKind::kExited, 255, true},
  };
  for (const Row& row : rows) {
    Guest guest;
    guest.reach(row.state);
    const auto events = guest.say_exit(row.kind, row.value);
    CHECK(row.good == (guest.host_.state() == State::kExited));
    CHECK(row.good != failed(guest, events));
  }
}

TEST_CASE("a guest has the credit it is given and no more") {
  Guest guest;
  guest.reach(State::kRunning);
  const base::Bytes piece(kMaxPayload, 'x');
  for (std::size_t sent = 0; sent < kOutputWindow; sent += piece.size()) {
    CHECK(guest.say(FrameType::kStdout, piece).size() == 1);
  }
  CHECK(guest.say(FrameType::kStderr, piece).size() == 1);  // the other stream has its own
  guest.host_.grant(Stream::kStdout, kMaxPayload);
  CHECK(guest.read_host() == Types{FrameType::kCredit});
  CHECK(guest.credit_ == kMaxPayload);
  guest.host_.grant(Stream::kStdout, std::size_t{1} << 40U);  // more than was ever sent
  (void)guest.read_host();
  CHECK(guest.credit_ == kOutputWindow);
  for (std::size_t sent = 0; sent < kOutputWindow; sent += piece.size()) {
    CHECK(guest.say(FrameType::kStdout, piece).size() == 1);
  }
  CHECK(failed(guest, guest.say(FrameType::kStdout, base::as_bytes("x"))));
}

TEST_CASE("stdin goes no further than its window") {
  Guest guest;
  guest.reach(State::kStartSent);
  const base::Bytes input(kStdinWindow + 10, 'i');
  CHECK(guest.host_.write_stdin(input) == kStdinWindow);
  CHECK(guest.host_.write_stdin(input) == 0);
  (void)guest.say(FrameType::kStarted);
  (void)guest.read_host();
  const auto events = guest.say(FrameType::kCredit, encode(Credit{Stream::kStdin, 10}));
  CHECK(std::holds_alternative<StdinRoomEvent>(events.at(0)));
  CHECK(guest.host_.write_stdin(input) == 10);
  guest.host_.close_stdin();
  CHECK(guest.read_host() == Types{FrameType::kStdin, FrameType::kStdinClose});
  (void)guest.say(FrameType::kCredit, encode(Credit{Stream::kStdin, 10}));
  CHECK(guest.host_.write_stdin(input) == 0);
  CHECK(failed(guest, guest.say(FrameType::kCredit, encode(Credit{Stream::kStdin, 0x7fffffff}))));
}

TEST_CASE("a guest that never reads gets no endless queue") {
  Guest guest;
  guest.reach(State::kRunning);
  for (int i = 0; i < 1'000'000; ++i) {
    guest.host_.signal(15);
  }
  CHECK(guest.host_.output().size() <= HostSession::kMaxOutput);
}

TEST_CASE("a process that joins has a life of its own beside the first") {
  Guest guest;
  guest.reach(State::kStartSent);
  CHECK(guest.host_.exec(Guest::workload()).error().code() == base::Errc::kFailedPrecondition);
  (void)guest.say(FrameType::kStarted);
  const auto one = guest.host_.exec(Guest::workload());
  const auto two = guest.host_.exec(Guest::workload());
  REQUIRE(one.ok());
  REQUIRE(two.ok());
  CHECK(*one == 1);
  CHECK(*two == 2);
  CHECK(guest.host_.write_stdin(base::as_bytes("in"), *two) == 2);
  guest.host_.close_stdin(*two);
  guest.host_.resize({50, 100}, *two);
  guest.host_.signal(9, *one);
  CHECK(guest.read_host() == Types(6, FrameType::kExec));
  CHECK(std::get<StartedEvent>(guest.say_of(2, FrameType::kStarted).at(0)).process == 2);
  auto events = guest.say_of(2, FrameType::kStderr, base::as_bytes("oops"));
  CHECK(std::get<OutputEvent>(events.at(0)).process == 2);
  CHECK(std::get<OutputEvent>(events.at(0)).stream == Stream::kStderr);
  guest.host_.grant(Stream::kStderr, kOutputWindow, 2);
  CHECK(std::get<StdinRoomEvent>(guest.say_of(2, FrameType::kCredit, encode(Credit{Stream::kStdin, 2})).at(0)).process == 2);
  CHECK(std::get<ExitEvent>(guest.say_exit_of(1, ExitKind::kExecFailed, 127).at(0)).process == 1);
  events = guest.say_exit_of(2, ExitKind::kExited, 3);
  CHECK(std::get<ExitEvent>(events.at(0)).process == 2);
  CHECK(std::get<ExitEvent>(events.at(0)).exit.value == 3);
  CHECK(guest.host_.write_stdin(base::as_bytes("in"), *two) == 0);
  guest.host_.signal(9, *two);  // nobody is there
  CHECK(guest.read_host().empty());
  CHECK(guest.host_.state() == State::kRunning);
  CHECK(*guest.host_.exec(Guest::workload()) == 3);  // a number is never given out again
}

TEST_CASE("what a guest may not say of a process that joined ends the session") {
  const base::Bytes too_much(kMaxExecPayload, 'x');
  const std::vector<std::pair<const char*, std::function<std::vector<Event>(Guest&)>>> rows = {
      {"of one that was not asked for", [](Guest& g) { return g.say_of(2, FrameType::kStarted); }},
      {"of the first", [](Guest& g) { return g.say_of(0, FrameType::kStdout, base::as_bytes("x")); }},
      {"output before STARTED", [](Guest& g) { return g.say_of(1, FrameType::kStdout, base::as_bytes("x")); }},
      {"an end before STARTED", [](Guest& g) { return g.say_exit_of(1, ExitKind::kExited, 0); }},
      {"credit before STARTED", [](Guest& g) { return g.say_of(1, FrameType::kCredit, encode(Credit{Stream::kStdin, 1})); }},
      {"a frame of the host", [](Guest& g) { return g.say_of(1, FrameType::kStdin, base::as_bytes("x")); }},
      {"a resize", [](Guest& g) { return g.say_of(1, FrameType::kResize, encode(WindowSize{})); }},
      {"an EXEC in an EXEC", [](Guest& g) { return g.say_of(1, FrameType::kExec, encode(ExecFrame{1, FrameType::kStarted, {}})); }},
      {"READY", [](Guest& g) { return g.say_of(1, FrameType::kReady); }},
      {"nothing", [](Guest& g) { return g.say(FrameType::kExec); }},
      {"STARTED twice", [](Guest& g) { (void)g.say_of(1, FrameType::kStarted); return g.say_of(1, FrameType::kStarted); }},
      {"more than its credit", [&](Guest& g) {
         auto events = g.say_of(1, FrameType::kStarted);
         for (std::size_t sent = 0; sent <= kOutputWindow; sent += too_much.size()) {
           events = g.say_of(1, FrameType::kStdout, too_much);
         }
         return events;
       }},
      {"a word after its end", [](Guest& g) {
         (void)g.say_of(1, FrameType::kStarted);
         (void)g.say_exit_of(1, ExitKind::kExited, 0);
         return g.say_of(1, FrameType::kStdout, base::as_bytes("x"));
       }},
  };
  for (const auto& [description, say] : rows) {
    CAPTURE(description);
    Guest guest;
    guest.reach(State::kRunning);
    REQUIRE(guest.host_.exec(Guest::workload()).ok());
    CHECK(failed(guest, say(guest)));
  }
}

TEST_CASE("processes that join are bounded in number, in size, and by what the guest reads") {
  Guest guest;
  guest.reach(State::kRunning);
  for (std::size_t i = 0; i < kMaxExecs; ++i) {
    CHECK(guest.host_.exec(Guest::workload()).ok());
  }
  CHECK(guest.host_.exec(Guest::workload()).error().code() == base::Errc::kResourceExhausted);
  (void)guest.say_exit_of(5, ExitKind::kSignaled, 9);
  CHECK(guest.host_.exec(Guest::workload()).ok());
  (void)guest.say_exit_of(6, ExitKind::kSignaled, 9);
  Process large = Guest::workload();
  large.env = {"A=" + std::string(kMaxExecPayload, 'x')};
  CHECK(guest.host_.exec(large).error().code() == base::Errc::kResourceExhausted);
  // A guest that ends processes and gives credit, but reads nothing.
  Guest deaf;
  deaf.reach(State::kRunning);
  large.env = {"A=" + std::string(kMaxExecPayload / 2, 'x')};
  const base::Bytes input(kStdinWindow, 'i');
  for (std::uint32_t i = 1; i < 1000; ++i) {
    if (const auto number = deaf.host_.exec(large); number.ok()) {
      (void)deaf.say_exit_of(*number, ExitKind::kSignaled, 9);
    }
    (void)deaf.host_.write_stdin(input);
    (void)deaf.say(FrameType::kCredit, encode(Credit{Stream::kStdin, kStdinWindow}));
    REQUIRE(deaf.host_.output().size() <= HostSession::kMaxOutput);
  }
  CHECK(deaf.host_.state() == State::kFailed);
}
