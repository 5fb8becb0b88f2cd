// Frames of the native socket: a u32 length in big-endian order, then that many bytes. Works on blocking and
// non-blocking stream sockets alike: every wait is a poll(2) with a deadline. A received descriptor never enters our
// table (recvmsg(2) without control buffer), and the attempt ends the connection.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.hpp"
#include "base/result.hpp"

namespace cellrund::api {

inline constexpr std::size_t kMaxRequestBytes = std::size_t{1} << 20U;
inline constexpr std::size_t kMaxResponseBytes = std::size_t{4} << 20U;

// The next frame, or nullopt when the peer closed between two frames.
//   `idle`: budget until its first byte; `whole`: budget from the first byte to the last, so that a peer that sends one
//   byte a minute cannot hold the reader.
// kDeadlineExceeded when a budget runs out, kResourceExhausted when the length is above `limit` (nothing of the body is
// read), kUnavailable when the peer closed inside a frame, kPermissionDenied when it passed a descriptor.
base::Result<std::optional<std::string>> read_frame(int fd, std::size_t limit, base::Nanoseconds idle,
                                                    base::Nanoseconds whole);

// kDeadlineExceeded when the peer does not take the whole frame in time. Never raises SIGPIPE.
base::Status write_frame(int fd, std::string_view body, base::Deadline deadline);

}  // namespace cellrund::api
