// A task's standard streams: FIFOs that the client made (containerd cio). Each is non-blocking and has a bounded buffer;
// a reader that stalls stops the guest's writer by way of its credit, and nothing else. Lives on the loop's thread.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/fd.hpp"
#include "base/file.hpp"
#include "base/result.hpp"
#include "shim/loop.hpp"

namespace cellrund::shim {

// `path`: absolute, with or without fifo://. A FIFO of our own user's and no link; non-blocking. kUnimplemented for any other
// scheme of containerd's.
base::Result<base::UniqueFd> open_fifo(std::string path, int flags);
// That, or whoever does it for a shim that may not.
using OpenFifo = std::function<base::Result<base::UniqueFd>(const std::string& path, int flags)>;

// stdout or stderr.
class OutputFifo {
 public:
  // `path`: a FIFO, with or without fifo://; empty: everything is discarded. `disposed` is called when bytes have left,
  // so that the guest may send as many again.
  static base::Result<std::unique_ptr<OutputFifo>> open(Loop& loop, const std::string& path,
                                                        std::function<void(std::size_t)> disposed,
                                                        const OpenFifo& opener = open_fifo);
  OutputFifo(const OutputFifo&) = delete;
  OutputFifo& operator=(const OutputFifo&) = delete;
  OutputFifo(OutputFifo&&) = delete;
  OutputFifo& operator=(OutputFifo&&) = delete;
  ~OutputFifo();

  // Bounded by the credit that the caller has given for it.
  void push(base::BytesView bytes);
  // Nothing more will come: the reader sees end of file once it has taken what is buffered.
  void finish();
  [[nodiscard]] bool closed() const noexcept { return !fd_; }

 private:
  OutputFifo(Loop& loop, base::UniqueFd fd, std::function<void(std::size_t)> disposed)
      : loop_(loop), fd_(std::move(fd)), disposed_(std::move(disposed)) {}
  void pump();
  void close() noexcept;

  Loop& loop_;
  base::UniqueFd fd_;
  std::function<void(std::size_t)> disposed_;
  base::Bytes buffer_;
  std::size_t sent_ = 0;
  bool watching_ = false;
  bool finished_ = false;
};

// stdin.
class InputFifo {
 public:
  struct Sink {
    // Takes bytes from the front and says how many; 0 means: not now, resume() will follow.
    std::function<std::size_t(base::BytesView)> take;
    std::function<void()> end;
  };
  // Empty path: `end` is called at once by start().
  // `keep_open`: the last writer's leaving is no end, the next may come (attach); only close_after_drain() ends it.
  static base::Result<std::unique_ptr<InputFifo>> open(Loop& loop, const std::string& path, Sink sink,
                                                       bool keep_open = false, const OpenFifo& opener = open_fifo);
  InputFifo(const InputFifo&) = delete;
  InputFifo& operator=(const InputFifo&) = delete;
  InputFifo(InputFifo&&) = delete;
  InputFifo& operator=(InputFifo&&) = delete;
  ~InputFifo();

  // Begins to forward.
  void start();
  // The sink has room again.
  void resume();
  // No writer will come any more: what lies in the FIFO is forwarded, then `end`.
  void close_after_drain();
  // Nobody takes any more.
  void stop();

 private:
  InputFifo(Loop& loop, base::UniqueFd fd, Sink sink) : loop_(loop), fd_(std::move(fd)), sink_(std::move(sink)) {}
  void pump();
  void finish();

  Loop& loop_;
  base::UniqueFd fd_;
  Sink sink_;
  base::Bytes pending_;
  bool started_ = false;
  bool watching_ = false;
  bool closing_ = false;
  bool ended_ = false;
};

}  // namespace cellrund::shim
