#include "shim/stdio.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>

using namespace cellrund;
using namespace cellrund::shim;

namespace {

struct Fifo {
  std::string folder, path;
  Fifo() {
    std::array<char, 32> name{"/tmp/shim-unit-XXXXXX"};
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    folder = name.data();
    path = folder + "/fifo";
    REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
  }
  ~Fifo() {
    (void)base::remove_file(path);
    (void)base::remove_dir(folder);
  }
};

Loop make_loop() {
  auto loop = Loop::create();
  REQUIRE(loop.ok());
  return std::move(*loop);
}

// Runs the loop until `done`, or fails the test after ten seconds.
template <typename Done>
void run_until(Loop& loop, Done done) {
  bool late = false;
  auto timer = Timer::create(loop, [&] {
    late = true;
    loop.stop();
  });
  REQUIRE(timer.ok());
  REQUIRE((*timer)->arm_after(std::chrono::seconds(10)).ok());
  std::unique_ptr<Timer> ticker;
  auto made = Timer::create(loop, [&] {
    if (done()) {
      loop.stop();
    } else {
      (void)ticker->arm_after(std::chrono::milliseconds(1));
    }
  });
  REQUIRE(made.ok());
  ticker = std::move(*made);
  REQUIRE(ticker->arm_after(std::chrono::milliseconds(1)).ok());
  REQUIRE(loop.run().ok());
  CHECK_FALSE(late);
}

std::size_t drain(int fd) {
  std::array<char, 65536> buffer{};
  std::size_t total = 0;
  for (ssize_t n = 0; (n = ::read(fd, buffer.data(), buffer.size())) > 0;) {
    total += static_cast<std::size_t>(n);
  }
  return total;
}

}  // namespace

TEST_CASE("a stalled reader blocks nothing, and gets every byte and then end of file") {
  const Fifo fifo;
  const base::UniqueFd reader(::open(fifo.path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  Loop loop = make_loop();
  std::size_t disposed = 0;
  auto output = OutputFifo::open(loop, "fifo://" + fifo.path, [&](std::size_t n) { disposed += n; });
  REQUIRE(output.ok());
  const base::Bytes data(256 * 1024, 'x');
  (*output)->push(data);
  CHECK(disposed < data.size());  // a pipe holds less than this
  (*output)->finish();
  CHECK_FALSE((*output)->closed());
  std::size_t received = 0;
  run_until(loop, [&] {
    received += drain(reader.get());
    return (*output)->closed();
  });
  received += drain(reader.get());
  CHECK(received == data.size());
  CHECK(disposed == data.size());
  char byte = 0;
  CHECK(::read(reader.get(), &byte, 1) == 0);
}

TEST_CASE("without a path output is discarded, and something that is no FIFO is refused") {
  Loop loop = make_loop();
  std::size_t disposed = 0;
  auto output = OutputFifo::open(loop, "", [&](std::size_t n) { disposed += n; });
  REQUIRE(output.ok());
  (*output)->push(base::Bytes(1000, 'x'));
  CHECK(disposed == 1000);
  CHECK_FALSE(OutputFifo::open(loop, "/dev/null", [](std::size_t) {}).ok());
  CHECK_FALSE(OutputFifo::open(loop, "binary:///bin/true", [](std::size_t) {}).ok());
  CHECK_FALSE(OutputFifo::open(loop, "file:///tmp/x", [](std::size_t) {}).ok());
}

TEST_CASE("input waits for a writer, respects the sink's room, and ends when the writer does") {
  const Fifo fifo;
  Loop loop = make_loop();
  std::string taken;
  bool ended = false;
  std::size_t room = 4;
  auto input = InputFifo::open(loop, fifo.path,
                               {[&](base::BytesView bytes) {
                                  const std::size_t n = std::min(room, bytes.size());
                                  taken += base::as_text(bytes.first(n));
                                  room -= n;
                                  return n;
                                },
                                [&] { ended = true; }});
  REQUIRE(input.ok());
  (*input)->start();
  {
    const base::UniqueFd writer(::open(fifo.path.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC));
    REQUIRE(base::write_all(writer.get(), base::as_bytes("hello world")).ok());
  }
  run_until(loop, [&] { return taken.size() == 4; });
  CHECK_FALSE(ended);
  room = 100;
  (*input)->resume();
  CHECK(taken == "hello world");
  run_until(loop, [&] { return ended; });
}

TEST_CASE("closing stdin forwards what already lies in the FIFO first") {
  const Fifo fifo;
  Loop loop = make_loop();
  std::string taken;
  bool ended = false;
  auto input = InputFifo::open(loop, fifo.path,
                               {[&](base::BytesView bytes) {
                                  taken += base::as_text(bytes);
                                  return bytes.size();
                                },
                                [&] { ended = true; }});
  REQUIRE(input.ok());
  (*input)->start();
  const base::UniqueFd writer(::open(fifo.path.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC));  // stays open
  REQUIRE(base::write_all(writer.get(), base::as_bytes("last words")).ok());
  (*input)->close_after_drain();
  CHECK(taken == "last words");
  CHECK(ended);
}
