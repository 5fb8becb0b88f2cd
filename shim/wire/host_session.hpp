// HostSession: the host's end of one cell's control channel, as a state machine without I/O of its own. The owner of
// the descriptor (the shim's event loop, or a cell's thread in the daemon) moves bytes:
//
//   events = session.feed(bytes read)            write(fd, session.output()); session.consumed(written)
//
//   host   HELLO ──────────────►   (queued by create)
//   guest  ◄────────────── HELLO   Hello event            → send_workload()
//   host   ENTROPY CLOCK WORKLOAD…►
//   guest  ◄────────────── READY   Ready event            → start(): the deadline counts from here
//   host   START ───────────────►
//   guest  ◄──────────── STARTED   Started event          exec has happened; or Exit with kExecFailed
//   both   STDIN/STDOUT/STDERR/CREDIT/SIGNAL/RESIZE       Output events: give the room back with grant()
//   both   EXEC(n: WORKLOAD … EXIT)                       exec(): a process beside the first, with the same life
//   guest  ◄─────────────── EXIT   Exit event, the last   → shutdown()
//
// Everything from the guest is hostile. The first frame that is malformed, out of order or beyond its credit gives a
// ProtocolError, after which the session is dead: feed() yields nothing and output() is empty.
// Memory: one frame in, kMaxOutput out. Not thread-safe; movable.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "base/file.hpp"
#include "base/result.hpp"
#include "shim/wire/frame.hpp"
#include "shim/wire/messages.hpp"
#include "shim/wire/secrets.hpp"
#include "shim/wire/workload.hpp"

namespace cellrund::wire {

struct HelloEvent {
  std::string kernel_release;  // printable ASCII, a claim of the guest
};
struct ReadyEvent {};
// `process`: 0 for the workload's first, else what exec() returned.
struct StartedEvent {
  std::uint32_t process = 0;
};
struct OutputEvent {
  Stream stream = Stream::kStdout;
  base::Bytes data;  // 1 byte to 64 KiB
  std::uint32_t process = 0;
};
// The guest's stdin has room again: write_stdin() may accept more.
struct StdinRoomEvent {
  std::uint32_t process = 0;
};
struct ExitEvent {
  Exit exit;
  std::uint32_t process = 0;
};
struct ProtocolErrorEvent {
  std::string what;
};
using Event =
    std::variant<HelloEvent, ReadyEvent, StartedEvent, OutputEvent, StdinRoomEvent, ExitEvent, ProtocolErrorEvent>;

class HostSession {
 public:
  enum class Mode {
    kMicrovm,  // sends ENTROPY and CLOCK before the workload
    kProcess,  // same kernel on both sides: neither is sent
  };
  enum class State { kHelloSent, kHello, kWorkloadSent, kReady, kStartSent, kRunning, kExited, kFailed };

  // Draws the nonce (getrandom(2)) and queues HELLO.
  static base::Result<HostSession> create(Mode mode);

  [[nodiscard]] State state() const noexcept { return state_; }

  [[nodiscard]] std::vector<Event> feed(base::BytesView bytes);

  // Bytes waiting to be written, and how many of them were.
  [[nodiscard]] base::BytesView output() const noexcept;
  void consumed(std::size_t bytes);

  // After Hello. kFailedPrecondition in another state, else what encode(Workload) fails with.
  base::Status send_workload(const Workload& workload);
  // After Ready, before start(): the guest writes it to a file before it runs anything. kFailedPrecondition in another state.
  base::Status send_secret(const NamedSecret& secret);
  // After start(): the guest takes the file away. Silently nothing otherwise.
  // False: it was not sent, because the workload does not run or its guest does not listen; then only the cell's end withdraws it.
  [[nodiscard]] bool revoke(std::string_view name);
  // After Ready. Process lane: the absolute deadline on CLOCK_BOOTTIME, 0 for none.
  base::Status start(std::int64_t deadline_boot_ns = 0);
  // After start(): takes what the guest's window allows, from the front, and returns how many bytes that was.
  // Nothing is taken after close_stdin().
  std::size_t write_stdin(base::BytesView bytes, std::uint32_t process = 0);
  void close_stdin(std::uint32_t process = 0);
  // Between start() and Exit; silently nothing otherwise (the process is not there to be signalled).
  void signal(int signo, std::uint32_t process = 0);
  void resize(WindowSize size, std::uint32_t process = 0);
  // The owner has disposed of `bytes` of a stream's Output events; the guest may send as many again.
  void grant(Stream stream, std::size_t bytes, std::uint32_t process = 0);
  // After Started and before Exit: runs another process in the workload, whose number is returned. Its events end with its
  // own Exit, or without one when the workload ends. kResourceExhausted: kMaxExecs are alive, the process does not fit a
  // frame, or the guest does not read.
  base::Result<std::uint32_t> exec(const Process& process);
  // Asks the guest to power off. In any state.
  void shutdown();

  // Upper bound of output(): a whole workload, a full stdin window of each process, and control frames.
  static constexpr std::size_t kMaxOutput = kMaxWorkloadBytes + 5UL * 1024 * 1024;

 private:
  HostSession(Mode mode, const Nonce& nonce);

  // What is known of one process.
  struct Peer {
    bool started = false;
    std::uint32_t stdin_credit = kStdinWindow;
    std::uint32_t output_credit[2] = {kOutputWindow, kOutputWindow};  // stdout, stderr: what the guest may still send
    std::uint32_t ungranted[2] = {0, 0};                              // disposed of, not yet announced
    bool stdin_closed = false;
  };

  void queue(FrameType type, base::BytesView payload);
  void queue_for(std::uint32_t process, FrameType type, base::BytesView payload);
  // nullptr: it has not been asked for, or has ended.
  Peer* living(std::uint32_t process);
  [[nodiscard]] bool has_room_for_control() const noexcept { return output().size() < kMaxOutput / 2; }
  void handle(const FrameView& frame, std::vector<Event>& events);
  void handle_exec(base::BytesView payload, std::vector<Event>& events);
  [[nodiscard]] bool may_end_with(ExitKind kind) const noexcept;
  void handle_output(std::uint32_t process, Stream stream, base::BytesView data, std::vector<Event>& events);
  void handle_credit(std::uint32_t process, base::BytesView payload, std::vector<Event>& events);
  void fail(std::vector<Event>& events, std::string what);
  void clear_output() noexcept;

  Mode mode_;
  State state_ = State::kHelloSent;
  Nonce nonce_{};
  Nonce guest_nonce_{};
  FrameParser parser_;
  std::uint64_t skipped_before_hello_ = 0;
  std::uint64_t stale_bytes_ = 0;  // of well-formed frames before the guest's answer
  base::WipedBytes output_;
  bool output_is_secret_ = false;  // in part; its memory is given back, and so wiped, as soon as all is sent
  std::size_t output_sent_ = 0;
  Peer first_;
  std::map<std::uint32_t, Peer> execs_;
  std::uint32_t last_exec_ = 0;
  bool shutdown_sent_ = false;
};

}  // namespace cellrund::wire
