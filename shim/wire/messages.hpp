// Payloads of the frames, as values. Encoders always succeed on values within the stated bounds; decoders refuse
// anything short, long or out of range.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/file.hpp"
#include "base/result.hpp"
#include "shim/wire/frame.hpp"

namespace cellrund::wire {

using Nonce = std::array<std::uint8_t, 16>;

// First frame of the host, and again never.
struct HostHello {
  std::uint32_t protocol = kProtocolVersion;
  Nonce nonce{};
};

// The guest's answer. `echo` is the host's nonce: an answer that lay in the channel from an earlier session (a machine
// restored from a template) does not have it.
struct GuestHello {
  std::uint32_t protocol = kProtocolVersion;
  Nonce nonce{};
  Nonce echo{};
  std::string kernel_release;  // uname(2), 1 to 64 printable ASCII characters; a claim of the guest
};

struct Clock {
  std::int64_t realtime_ns = 0;  // CLOCK_REALTIME, since 1970
};

// From here on user code runs. `echo` is the guest's nonce.
struct Start {
  Nonce echo{};
  // Process lane only, where both sides share one clock: absolute CLOCK_BOOTTIME of the deadline, 0 for none.
  std::int64_t deadline_boot_ns = 0;
};

enum class Stream : std::uint8_t { kStdin = 0, kStdout = 1, kStderr = 2 };

// Permission to send `bytes` more bytes of `stream`.
struct Credit {
  Stream stream = Stream::kStdout;
  std::uint32_t bytes = 0;
};

// What each side may send of a stream before the first CREDIT.
inline constexpr std::uint32_t kStdinWindow = 64 * 1024;
inline constexpr std::uint32_t kOutputWindow = 256 * 1024;

enum class ExitKind : std::uint8_t {
  kExited = 1,       // value: exit code of the workload
  kSignaled = 2,     // value: signal number
  kExecFailed = 3,   // value: 126 cannot be invoked, 127 not found
  kSetupFailed = 4,  // value: 0; the cell could not be made ready, no user code has run
};
[[nodiscard]] std::string_view to_string(ExitKind kind) noexcept;

// How the workload ended. In the microvm lane every field is a claim of the guest.
struct Exit {
  ExitKind kind = ExitKind::kExited;
  std::int32_t value = 0;
  std::string message;            // at most 256 bytes, printable ASCII
  bool oom_killed = false;        // the guest's OOM killer hit the workload
  bool pids_exhausted = false;    // a fork was refused by the pids limit
  bool disk_full = false;         // a writable file system had no block or no inode left when the workload ended
  bool output_truncated = false;  // the reader took no more output in time
  // When cell-init itself enforced the deadline (process lane): CLOCK_BOOTTIME of each step, 0 if not taken.
  std::int64_t stop_sent_boot_ns = 0;
  std::int64_t kill_sent_boot_ns = 0;
};

// Of a terminal, in characters.
struct WindowSize {
  std::uint16_t rows = 24;
  std::uint16_t columns = 80;
  friend bool operator==(const WindowSize&, const WindowSize&) = default;
};

// A process that joins the running workload: each of its frames travels inside an EXEC frame. `type` is one of
// WORKLOAD (H→G, the first: encode_process()), STARTED, STDIN, STDIN_CLOSE, STDOUT, STDERR, CREDIT, SIGNAL, RESIZE and
// EXIT (the last), with their payloads and directions. The host draws the numbers, from 1 upwards; 0 is the workload's
// own first process, whose frames travel bare.
struct ExecFrame {
  std::uint32_t process = 0;
  FrameType type = FrameType::kWorkload;
  base::BytesView payload;  // at most kMaxExecPayload
};
inline constexpr std::size_t kMaxExecPayload = kMaxPayload - 5;
// Alive at one time in one cell.
inline constexpr std::size_t kMaxExecs = 16;

[[nodiscard]] base::Bytes encode(const HostHello& message);
[[nodiscard]] base::Bytes encode(const GuestHello& message);
[[nodiscard]] base::Bytes encode(const Clock& message);
[[nodiscard]] base::Bytes encode(const Start& message);
[[nodiscard]] base::Bytes encode(const Credit& message);
[[nodiscard]] base::Bytes encode_signal(int signo);
[[nodiscard]] base::Bytes encode(const Exit& message);
[[nodiscard]] base::Bytes encode(const WindowSize& message);
[[nodiscard]] base::Bytes encode(const ExecFrame& message);

base::Result<HostHello> decode_host_hello(base::BytesView payload);
base::Result<GuestHello> decode_guest_hello(base::BytesView payload);
base::Result<Clock> decode_clock(base::BytesView payload);
base::Result<Start> decode_start(base::BytesView payload);
base::Result<Credit> decode_credit(base::BytesView payload);
// 1 to 64.
base::Result<int> decode_signal(base::BytesView payload);
base::Result<Exit> decode_exit(base::BytesView payload);
base::Result<WindowSize> decode_window_size(base::BytesView payload);
// The frame's payload lies in `payload`.
base::Result<ExecFrame> decode_exec_frame(base::BytesView payload);

inline constexpr std::size_t kMaxExitMessage = 256;
inline constexpr std::size_t kMaxKernelRelease = 64;
inline constexpr std::size_t kMaxEntropy = 256;

}  // namespace cellrund::wire
