#include "base/process.hpp"

#include <doctest/doctest.h>
#include <signal.h>
#include <unistd.h>

#include "base/file.hpp"

using namespace cellrund::base;
using namespace std::chrono_literals;

TEST_CASE("a command's output, input and exit code arrive") {
  const auto result = run_command({.argv = {"/bin/sh", "-c", "cat; echo err >&2; exit 7"}}, "hello", Deadline::after(10s));
  REQUIRE(result.ok());
  CHECK(result->out == "hello");
  CHECK(result->err == "err\n");
  CHECK_FALSE(result->exit.signaled);
  CHECK(result->exit.value == 7);
}

TEST_CASE("a command past its deadline is killed and says so") {
  const auto result = run_command({.argv = {"/bin/sleep", "1000"}}, "", Deadline::after(50ms));
  REQUIRE_FALSE(result.ok());
  CHECK(result.error().code() == Errc::kDeadlineExceeded);
}

TEST_CASE("a child inherits only the descriptors that are listed") {
  auto pipe = make_pipe();
  REQUIRE(pipe.ok());
  const auto result = run_command({.argv = {"/bin/ls", "/proc/self/fd"}, .fds = {{pipe->read.get(), 5}}}, "", Deadline::after(10s));
  REQUIRE(result.ok());
  CHECK(result->out == "0\n1\n2\n3\n5\n");  // 3 is ls's own directory stream
}

TEST_CASE("a dead process is not alive, whatever its pid becomes") {
  const auto child = spawn({.argv = {"/bin/sleep", "1000"}});
  REQUIRE(child.ok());
  CHECK(is_alive(child->id()));
  CHECK_FALSE(is_alive({child->id().pid, child->id().start_time + 1}));
  REQUIRE(child->signal(SIGKILL).ok());
  const auto exit = child->reap(Deadline::after(10s));
  REQUIRE(exit.ok());
  REQUIRE(exit->has_value());
  CHECK((*exit)->signaled);
  CHECK((*exit)->value == SIGKILL);
  CHECK_FALSE(is_alive(child->id()));
  CHECK(PidFd::open(child->id()).error().code() == Errc::kNotFound);
}

TEST_CASE("starting what does not exist names it") {
  const auto child = spawn({.argv = {"/nonexistent/program"}});
  REQUIRE_FALSE(child.ok());
  CHECK(child.error().code() == Errc::kNotFound);
  CHECK(child.error().message().find("/nonexistent/program") != std::string::npos);
}
