// Channel: cell-init's end of the control channel, a non-blocking descriptor with one frame of input and a bounded
// queue of output. Control frames always fit; the caller takes output of the workload only while has_room().
#pragma once

#include <functional>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "shim/wire/frame.hpp"

namespace cellrund::guest {

class Channel {
 public:
  // `fd` is non-blocking.
  explicit Channel(base::UniqueFd fd) noexcept : fd_(std::move(fd)) {}

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  // The peer closed a socket, or an error made the descriptor useless. What is sent afterwards is dropped.
  [[nodiscard]] bool lost() const noexcept { return lost_; }
  [[nodiscard]] bool wants_write() const noexcept { return !lost_ && sent_ < output_.size(); }
  // Room for one more full frame of workload output.
  [[nodiscard]] bool has_room() const noexcept { return output_.size() - sent_ < kOutputMark; }

  void send(wire::FrameType type, base::BytesView payload);
  // Writes what the descriptor takes now.
  void flush();
  enum class Read { kData, kNothing, kEndOfFile };
  // Reads once; `on_frame` is called for each whole frame. The host is trusted, but its bytes are bounded all the same.
  Read receive(const std::function<void(const wire::FrameView&)>& on_frame);
  void mark_lost() noexcept;

 private:
  static constexpr std::size_t kOutputMark = 128 * 1024;

  base::UniqueFd fd_;
  wire::FrameParser parser_;
  base::Bytes output_;
  std::size_t sent_ = 0;
  base::Bytes input_ = base::Bytes(kReadBytes);
  bool lost_ = false;
  static constexpr std::size_t kReadBytes = 64 * 1024;
};

}  // namespace cellrund::guest
