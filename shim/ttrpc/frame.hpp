// ttRPC frames (containerd/ttrpc PROTOCOL.md): length, stream id (both big-endian u32), type, flags, then `length` bytes
// of a protobuf Request or Response. The parser takes bytes as they come and never trusts a declared length: memory grows
// only with bytes that arrived, and stops at the protocol's 4 MiB.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/file.hpp"

namespace cellrund::shim::ttrpc {

inline constexpr std::size_t kHeaderBytes = 10;
inline constexpr std::size_t kMaxPayload = 4U << 20U;

enum class FrameType : std::uint8_t { kRequest = 1, kResponse = 2, kData = 3 };

struct Frame {
  std::uint32_t stream = 0;
  std::uint8_t type = 0;  // a FrameType, or anything else that the peer sent
  std::uint8_t flags = 0;
  std::string payload;
  bool too_long = false;  // the payload was discarded: answer RESOURCE_EXHAUSTED
};

[[nodiscard]] std::string encode_frame(std::uint32_t stream, FrameType type, std::string_view payload);

class FrameParser {
 public:
  // Consumes from the front of `bytes` up to the end of one frame; call again until it returns nothing.
  std::optional<Frame> next(base::BytesView& bytes);

 private:
  std::uint8_t header_[kHeaderBytes] = {};
  std::size_t header_fill_ = 0;
  std::uint32_t length_ = 0;
  std::uint32_t seen_ = 0;  // payload bytes consumed, discarded ones included
  Frame frame_;
};

}  // namespace cellrund::shim::ttrpc
