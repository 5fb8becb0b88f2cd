#include "shim/wire/messages.hpp"

#include <algorithm>

#include "shim/wire/codec.hpp"

namespace cellrund::wire {
namespace {

using base::Errc;
using base::Error;

constexpr std::uint8_t kFlagOom = 1;
constexpr std::uint8_t kFlagPids = 2;
constexpr std::uint8_t kFlagTruncated = 4;
constexpr std::uint8_t kFlagDisk = 8;
constexpr int kHighestSignal = 64;

Error malformed(const char* what) { return Error(Errc::kInvalidArgument, std::string("decode ") + what + ": malformed"); }

bool is_printable(char c) noexcept { return c >= 0x20 && c <= 0x7e; }

Nonce read_nonce(Reader& reader) {
  Nonce nonce{};
  const base::BytesView bytes = reader.raw(nonce.size());
  std::copy(bytes.begin(), bytes.end(), nonce.begin());
  return nonce;
}

}  // namespace

std::string_view to_string(ExitKind kind) noexcept {
  switch (kind) {
    case ExitKind::kExited:
      return "exited";
    case ExitKind::kSignaled:
      return "signaled";
    case ExitKind::kExecFailed:
      return "exec_failed";
    case ExitKind::kSetupFailed:
      return "setup_failed";
  }
  return "unknown";
}

base::Bytes encode(const HostHello& message) {
  Writer writer;
  writer.u32(message.protocol);
  writer.raw(message.nonce);
  return std::move(writer).take();
}

base::Bytes encode(const GuestHello& message) {
  Writer writer;
  writer.u32(message.protocol);
  writer.raw(message.nonce);
  writer.raw(message.echo);
  writer.text(std::string_view(message.kernel_release).substr(0, kMaxKernelRelease));
  return std::move(writer).take();
}

base::Bytes encode(const Clock& message) {
  Writer writer;
  writer.u64(static_cast<std::uint64_t>(message.realtime_ns));
  return std::move(writer).take();
}

base::Bytes encode(const Start& message) {
  Writer writer;
  writer.raw(message.echo);
  writer.u64(static_cast<std::uint64_t>(message.deadline_boot_ns));
  return std::move(writer).take();
}

base::Bytes encode(const Credit& message) {
  Writer writer;
  writer.u8(static_cast<std::uint8_t>(message.stream));
  writer.u32(message.bytes);
  return std::move(writer).take();
}

base::Bytes encode_signal(int signo) {
  Writer writer;
  writer.u8(static_cast<std::uint8_t>(signo));
  return std::move(writer).take();
}

base::Bytes encode(const Exit& message) {
  Writer writer;
  writer.u8(static_cast<std::uint8_t>(message.kind));
  writer.u32(static_cast<std::uint32_t>(message.value));
  writer.u8(static_cast<std::uint8_t>((message.oom_killed ? kFlagOom : 0) | (message.pids_exhausted ? kFlagPids : 0) |
                                      (message.output_truncated ? kFlagTruncated : 0) | (message.disk_full ? kFlagDisk : 0)));
  writer.u64(static_cast<std::uint64_t>(message.stop_sent_boot_ns));
  writer.u64(static_cast<std::uint64_t>(message.kill_sent_boot_ns));
  std::string text = message.message.substr(0, kMaxExitMessage);
  std::replace_if(text.begin(), text.end(), [](char c) { return !is_printable(c); }, '?');
  writer.text(text);
  return std::move(writer).take();
}

base::Bytes encode(const WindowSize& message) {
  Writer writer;
  writer.u16(message.rows);
  writer.u16(message.columns);
  return std::move(writer).take();
}

base::Bytes encode(const ExecFrame& message) {
  Writer writer;
  writer.u32(message.process);
  writer.u8(static_cast<std::uint8_t>(message.type));
  writer.raw(message.payload);
  return std::move(writer).take();
}

base::Result<HostHello> decode_host_hello(base::BytesView payload) {
  Reader reader(payload);
  HostHello message;
  message.protocol = reader.u32();
  message.nonce = read_nonce(reader);
  if (!reader.complete()) {
    return malformed("HELLO");
  }
  return message;
}

base::Result<GuestHello> decode_guest_hello(base::BytesView payload) {
  Reader reader(payload);
  GuestHello message;
  message.protocol = reader.u32();
  message.nonce = read_nonce(reader);
  message.echo = read_nonce(reader);
  message.kernel_release = reader.text(kMaxKernelRelease);
  const std::string& release = message.kernel_release;
  if (!reader.complete() || release.empty() || !std::all_of(release.begin(), release.end(), is_printable)) {
    return malformed("HELLO");
  }
  return message;
}

base::Result<Clock> decode_clock(base::BytesView payload) {
  Reader reader(payload);
  Clock message;
  message.realtime_ns = static_cast<std::int64_t>(reader.u64());
  if (!reader.complete() || message.realtime_ns < 0) {
    return malformed("CLOCK");
  }
  return message;
}

base::Result<Start> decode_start(base::BytesView payload) {
  Reader reader(payload);
  Start message;
  message.echo = read_nonce(reader);
  message.deadline_boot_ns = static_cast<std::int64_t>(reader.u64());
  if (!reader.complete() || message.deadline_boot_ns < 0) {
    return malformed("START");
  }
  return message;
}

base::Result<Credit> decode_credit(base::BytesView payload) {
  Reader reader(payload);
  const std::uint8_t stream = reader.u8();
  const std::uint32_t bytes = reader.u32();
  if (!reader.complete() || stream > static_cast<std::uint8_t>(Stream::kStderr) || bytes == 0) {
    return malformed("CREDIT");
  }
  return Credit{static_cast<Stream>(stream), bytes};
}

base::Result<int> decode_signal(base::BytesView payload) {
  Reader reader(payload);
  const int signo = reader.u8();
  if (!reader.complete() || signo < 1 || signo > kHighestSignal) {
    return malformed("SIGNAL");
  }
  return signo;
}

base::Result<Exit> decode_exit(base::BytesView payload) {
  Reader reader(payload);
  Exit message;
  const std::uint8_t kind = reader.u8();
  const auto value = static_cast<std::int32_t>(reader.u32());
  const std::uint8_t flags = reader.u8();
  message.stop_sent_boot_ns = static_cast<std::int64_t>(reader.u64());
  message.kill_sent_boot_ns = static_cast<std::int64_t>(reader.u64());
  message.message = reader.text(kMaxExitMessage);
  if (!reader.complete() || (flags & ~(kFlagOom | kFlagPids | kFlagTruncated | kFlagDisk)) != 0 || message.stop_sent_boot_ns < 0 ||
      message.kill_sent_boot_ns < 0 || !std::all_of(message.message.begin(), message.message.end(), is_printable)) {
    return malformed("EXIT");
  }
  bool in_range = false;
  switch (kind) {
    case static_cast<std::uint8_t>(ExitKind::kExited):
      in_range = value >= 0 && value <= 255;
      break;
    case static_cast<std::uint8_t>(ExitKind::kSignaled):
      in_range = value >= 1 && value <= kHighestSignal;
      break;
    case static_cast<std::uint8_t>(ExitKind::kExecFailed):
      in_range = value == 126 || value == 127;
      break;
    case static_cast<std::uint8_t>(ExitKind::kSetupFailed):
      in_range = value == 0;
      break;
    default:
      break;
  }
  if (!in_range) {
    return malformed("EXIT");
  }
  message.kind = static_cast<ExitKind>(kind);
  message.value = value;
  message.oom_killed = (flags & kFlagOom) != 0;
  message.pids_exhausted = (flags & kFlagPids) != 0;
  message.output_truncated = (flags & kFlagTruncated) != 0;
  message.disk_full = (flags & kFlagDisk) != 0;
  return message;
}

base::Result<WindowSize> decode_window_size(base::BytesView payload) {
  Reader reader(payload);
  WindowSize message;
  message.rows = reader.u16();
  message.columns = reader.u16();
  if (!reader.complete()) {
    return malformed("RESIZE");
  }
  return message;
}

base::Result<ExecFrame> decode_exec_frame(base::BytesView payload) {
  Reader reader(payload);
  ExecFrame message;
  message.process = reader.u32();
  const auto type = static_cast<FrameType>(reader.u8());
  if (reader.failed() || message.process == 0) {
    return malformed("EXEC");
  }
  switch (type) {
    case FrameType::kWorkload:
    case FrameType::kStarted:
    case FrameType::kStdin:
    case FrameType::kStdinClose:
    case FrameType::kStdout:
    case FrameType::kStderr:
    case FrameType::kCredit:
    case FrameType::kSignal:
    case FrameType::kResize:
    case FrameType::kExit:
      break;
    default:
      return malformed("EXEC");
  }
  message.type = type;
  message.payload = payload.subspan(payload.size() - reader.left());
  return message;
}

}  // namespace cellrund::wire
