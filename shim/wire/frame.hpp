// Frames of the host-guest protocol, spoken over the virtio-serial port "org.cellrun.agent.0" (microvm lane) and over a
// socketpair (process lane).
//
//   offset  0  magic "CRW1"
//           4  protocol version, 3
//           5  type
//           6  reserved, 0
//           8  payload length, little endian, at most 64 KiB
//          12  CRC-32 (IEEE 802.3) of bytes 0..11
//          16  payload
//
// virtio-serial has no notion of a connection: bytes of an earlier opener may stand in front of the first frame. So the
// parser can find the next header by its magic, and the CRC makes a header in the middle of a payload improbable. The
// sums guard against losing step, not against forgery: both ends treat what a well-formed frame says as hostile.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "base/file.hpp"
#include "base/secret.hpp"

namespace cellrund::wire {

inline constexpr std::uint8_t kProtocolVersion = 3;
inline constexpr std::size_t kHeaderBytes = 16;
inline constexpr std::size_t kMaxPayload = 64 * 1024;

// The virtio-serial port names that the guest looks for in /sys/class/virtio-ports/*/name.
inline constexpr const char* kAgentPortName = "org.cellrun.agent.0";
inline constexpr const char* kOutputsPortName = "org.cellrun.outputs.0";

// H→G and G→H: who sends it. messages.hpp has the payloads, host_session.hpp the order.
enum class FrameType : std::uint8_t {
  kHello = 1,        // H→G, then G→H
  kEntropy = 2,      // H→G
  kClock = 3,        // H→G
  kWorkload = 4,     // H→G, one or more pieces
  kReady = 5,        // G→H
  kStart = 6,        // H→G
  kStarted = 7,      // G→H
  kStdin = 8,        // H→G
  kStdinClose = 9,   // H→G
  kStdout = 10,      // G→H
  kStderr = 11,      // G→H
  kCredit = 12,      // both ways
  kSignal = 13,      // H→G
  kExit = 14,        // G→H
  kShutdown = 15,    // H→G
  kResize = 16,      // H→G
  kExec = 17,        // both ways: a frame of another process than the workload's first (messages.hpp, ExecFrame)
  kSecret = 18,      // H→G, between READY and START (secrets.hpp)
  kRevoke = 19,      // H→G, after START
};
inline constexpr std::uint8_t kLastFrameType = 19;

struct FrameView {
  FrameType type = FrameType::kHello;
  base::BytesView payload;  // valid until the parser is used again
};

// The header of one frame. Precondition: payload.size() <= kMaxPayload.
[[nodiscard]] std::array<std::uint8_t, kHeaderBytes> frame_header(FrameType type, base::BytesView payload);

// Appends one frame to a vector of bytes. The same precondition.
template <typename Out>
void append_frame(Out& out, FrameType type, base::BytesView payload) {
  const std::array<std::uint8_t, kHeaderBytes> header = frame_header(type, payload);
  out.insert(out.end(), header.begin(), header.end());
  out.insert(out.end(), payload.begin(), payload.end());
}

// Incremental and bounded: holds at most one frame (kHeaderBytes + kMaxPayload bytes), whatever the peer sends.
class FrameParser {
 public:
  // Takes bytes from the front of `input` until one frame is complete, and returns it; nullopt when the input is used
  // up. Call until nullopt. Bytes that start no valid header are skipped and counted.
  std::optional<FrameView> next(base::BytesView& input);

  // Bytes skipped so far in search of a header. A session allows some before its first frame and none after it.
  [[nodiscard]] std::uint64_t skipped() const noexcept { return skipped_; }
  // A SECRET frame has begun and not ended.
  [[nodiscard]] bool in_secret() const noexcept {
    return header_valid_ && !frame_out_ && static_cast<FrameType>(header_[5]) == FrameType::kSecret;
  }

 private:
  void drop_to_next_magic();
  void end_frame();

  std::array<std::uint8_t, kHeaderBytes> header_{};
  std::size_t header_fill_ = 0;
  bool header_valid_ = false;
  bool frame_out_ = false;  // the last returned frame still lies in payload_
  std::size_t length_ = 0;
  base::WipedBytes payload_;
  std::uint64_t skipped_ = 0;
};

// CRC-32 as in zlib: reflected polynomial 0xEDB88320, initial and final inversion.
[[nodiscard]] std::uint32_t crc32(base::BytesView bytes) noexcept;

}  // namespace cellrund::wire
