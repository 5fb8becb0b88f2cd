#include "shim/guest/channel.hpp"

#include <string.h>
#include <unistd.h>

#include <cerrno>

namespace cellrund::guest {

void Channel::send(wire::FrameType type, base::BytesView payload) {
  if (lost_) {
    return;
  }
  if (sent_ == output_.size()) {
    output_.clear();
    sent_ = 0;
  }
  wire::append_frame(output_, type, payload);
  flush();
}

void Channel::flush() {
  while (wants_write()) {
    const ssize_t n = ::write(fd_.get(), output_.data() + sent_, output_.size() - sent_);
    if (n > 0) {
      sent_ += static_cast<std::size_t>(n);
      continue;
    }
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n < 0 && errno != EAGAIN) {
      mark_lost();
    }
    break;
  }
  if (sent_ == output_.size()) {
    output_.clear();
    sent_ = 0;
  } else if (sent_ >= kOutputMark) {
    output_.erase(output_.begin(), output_.begin() + static_cast<std::ptrdiff_t>(sent_));
    sent_ = 0;
  }
}

Channel::Read Channel::receive(const std::function<void(const wire::FrameView&)>& on_frame) {
  const ssize_t n = ::read(fd_.get(), input_.data(), input_.size());
  if (n < 0) {
    return errno == EAGAIN || errno == EINTR ? Read::kNothing : Read::kEndOfFile;
  }
  if (n == 0) {
    return Read::kEndOfFile;
  }
  base::BytesView bytes(input_.data(), static_cast<std::size_t>(n));
  bool secret = false;
  while (const auto frame = parser_.next(bytes)) {
    secret = secret || frame->type == wire::FrameType::kSecret;
    on_frame(*frame);
  }
  // A part of one may have come before, and is overwritten by the next read, or by this one's.
  if (secret || parser_.in_secret()) {
    ::explicit_bzero(input_.data(), input_.size());
  }
  return Read::kData;
}

void Channel::mark_lost() noexcept {
  lost_ = true;
  output_.clear();
  sent_ = 0;
}

}  // namespace cellrund::guest
