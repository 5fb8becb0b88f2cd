#include "shim/stdio.hpp"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "base/log.hpp"

namespace cellrund::shim {
namespace {

using base::Errc;
using base::Error;
using base::Result;

}  // namespace

Result<base::UniqueFd> open_fifo(std::string path, int flags) {
  constexpr std::string_view kScheme = "fifo://";
  if (path.starts_with(kScheme)) {
    path.erase(0, kScheme.size());
  }
  if (path.find("://") != std::string::npos) {
    return Error(Errc::kUnimplemented, "standard stream " + base::log::quoted(path) + ": only FIFOs are supported");
  }
  if (!path.starts_with('/')) {
    return Error(Errc::kInvalidArgument, "standard stream " + base::log::quoted(path) + ": not an absolute path");
  }
  // Looked at before it is opened: opening a device can do things.
  const base::UniqueFd found = CR_TRY(base::open_file(path, O_PATH | O_NOFOLLOW).context("standard stream"));
  struct stat st {};
  if (::fstat(found.get(), &st) != 0 || !S_ISFIFO(st.st_mode) || st.st_uid != ::geteuid()) {
    return Error(Errc::kInvalidArgument, "standard stream " + base::log::quoted(path) + ": not a FIFO of the shim's user");
  }
  return base::open_file("/proc/self/fd/" + std::to_string(found.get()), flags | O_NONBLOCK).context("standard stream");
}

Result<std::unique_ptr<OutputFifo>> OutputFifo::open(Loop& loop, const std::string& path,
                                                     std::function<void(std::size_t)> disposed, const OpenFifo& opener) {
  base::UniqueFd fd;
  if (!path.empty()) {
    // Read-write, so that the FIFO keeps its contents, and we keep our end, while its reader restarts (fifo(7)).
    fd = CR_TRY(opener(path, O_RDWR));
  }
  return std::unique_ptr<OutputFifo>(new OutputFifo(loop, std::move(fd), std::move(disposed)));
}

OutputFifo::~OutputFifo() { close(); }

void OutputFifo::close() noexcept {
  if (fd_) {
    if (watching_) {
      loop_.unwatch(fd_.get());
    }
    fd_.reset();
  }
}

void OutputFifo::push(base::BytesView bytes) {
  if (!fd_) {
    disposed_(bytes.size());
    return;
  }
  buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
  pump();
}

void OutputFifo::finish() {
  finished_ = true;
  pump();
}

void OutputFifo::pump() {
  std::size_t written = 0;
  bool failed = false;
  while (fd_ && sent_ < buffer_.size()) {
    const ssize_t n = ::write(fd_.get(), buffer_.data() + sent_, buffer_.size() - sent_);
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n < 0) {
      failed = errno != EAGAIN;
      break;
    }
    sent_ += static_cast<std::size_t>(n);
    written += static_cast<std::size_t>(n);
  }
  if (failed) {
    written += buffer_.size() - sent_;
    sent_ = buffer_.size();
  }
  if (sent_ == buffer_.size()) {
    buffer_.clear();
    sent_ = 0;
  }
  const bool blocked = !buffer_.empty();
  if (failed || (finished_ && !blocked)) {
    close();
  } else if (blocked != watching_ && fd_) {
    watching_ = blocked;
    if (!blocked) {
      loop_.unwatch(fd_.get());
    } else if (!loop_.watch(fd_.get(), EPOLLOUT, [this](std::uint32_t) { pump(); }).ok()) {
      close();
    }
  }
  if (written != 0) {
    disposed_(written);
  }
}

Result<std::unique_ptr<InputFifo>> InputFifo::open(Loop& loop, const std::string& path, Sink sink,
                                                   bool keep_open, const OpenFifo& opener) {
  base::UniqueFd fd;
  if (!path.empty()) {
    // With a writing end of our own there is never an end of file (fifo(7)).
    fd = CR_TRY(opener(path, keep_open ? O_RDWR : O_RDONLY));
  }
  return std::unique_ptr<InputFifo>(new InputFifo(loop, std::move(fd), std::move(sink)));
}

InputFifo::~InputFifo() {
  if (watching_) {
    loop_.unwatch(fd_.get());
  }
}

void InputFifo::start() {
  started_ = true;
  if (!fd_) {
    finish();
    return;
  }
  // Not read right away: as long as no writer has come, read(2) would say end of file; epoll says nothing (pipe(7)).
  resume();
}

void InputFifo::resume() {
  if (!started_ || ended_ || !fd_) {
    return;
  }
  if (!pending_.empty()) {
    pending_.erase(pending_.begin(), pending_.begin() + static_cast<std::ptrdiff_t>(sink_.take(pending_)));
    if (!pending_.empty()) {
      return;
    }
  }
  if (closing_) {
    pump();
  } else if (!watching_) {
    watching_ = loop_.watch(fd_.get(), EPOLLIN, [this](std::uint32_t) { pump(); }).ok();
  }
}

void InputFifo::close_after_drain() {
  closing_ = true;
  if (started_ && !ended_ && pending_.empty() && fd_) {
    pump();
  }
}

void InputFifo::stop() {
  ended_ = true;
  if (watching_) {
    loop_.unwatch(fd_.get());
    watching_ = false;
  }
  fd_.reset();
}

void InputFifo::pump() {
  while (!ended_ && pending_.empty()) {
    std::array<std::uint8_t, 16384> buffer;  // NOLINT(cppcoreguidelines-pro-type-member-init): filled by read
    const ssize_t n = ::read(fd_.get(), buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n < 0 && errno == EAGAIN && !closing_) {
      return;
    }
    if (n <= 0) {
      finish();
      return;
    }
    const base::BytesView bytes(buffer.data(), static_cast<std::size_t>(n));
    const base::BytesView rest = bytes.subspan(sink_.take(bytes));
    pending_.assign(rest.begin(), rest.end());
  }
  if (watching_ && !ended_) {
    loop_.unwatch(fd_.get());  // level-triggered: it would spin until the sink has room
    watching_ = false;
  }
}

void InputFifo::finish() {
  if (!ended_) {
    ended_ = true;
    if (watching_) {
      loop_.unwatch(fd_.get());
      watching_ = false;
    }
    sink_.end();
  }
}

}  // namespace cellrund::shim
