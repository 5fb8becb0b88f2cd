#include "host/clone.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>

#include "base/file.hpp"

using namespace cellrund;
using namespace cellrund::host;
using namespace std::chrono_literals;

namespace {

// Runs a shell script and gives what it wrote to descriptor 1.
std::string run(CloneOptions options) {
  auto pipe = base::make_pipe();
  REQUIRE(pipe.ok());
  options.fds.emplace_back(pipe->write.get(), 1);
  const auto child = clone_and_exec(options);
  REQUIRE_MESSAGE(child.ok(), (child.ok() ? "" : child.error().message()));
  pipe->write.reset();
  const auto text = base::read_fd(pipe->read.get(), 65536);
  REQUIRE(text.ok());
  const auto exit = child->reap(base::Deadline::after(10s));
  REQUIRE(exit.ok());
  REQUIRE(exit->has_value());
  CHECK_FALSE((*exit)->signaled);
  return *text;
}

}  // namespace

TEST_CASE("the child has its arguments, environment, folder and listed descriptors, and no others") {
  const auto leaked = base::open_file("/etc/passwd", O_RDONLY);
  REQUIRE(leaked.ok());
  REQUIRE(base::set_inherit(leaked->get(), true).ok());
  CHECK(run({.argv = {"/bin/sh", "-c", "echo $0 $1 $V; pwd; ls /proc/self/fd | tr '\\n' ' '", "zero", "one"},
             .env = {"V=value", "PATH=/bin:/usr/bin"},
             .fds = {{leaked->get(), 9}},
             .working_dir = "/usr"}) == "zero one value\n/usr\n0 1 2 3 9 ");  // 3 is ls's own directory stream
}

TEST_CASE("the child starts with default signal handlers and nothing blocked") {
  struct sigaction ignore {};
  ignore.sa_handler = SIG_IGN;
  struct sigaction before {};
  REQUIRE(::sigaction(SIGPIPE, &ignore, &before) == 0);
  CHECK(run({.argv = {"/bin/sed", "-nE", "/Sig(Blk|Ign|Cgt)/p", "/proc/self/status"}}) ==
        "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\nSigCgt:\t0000000000000000\n");
  REQUIRE(::sigaction(SIGPIPE, &before, nullptr) == 0);
}

TEST_CASE("an open file can be run without its path") {
  const auto program = base::open_file("/bin/echo", O_RDONLY);
  REQUIRE(program.ok());
  CHECK(run({.argv = {"anything", "by descriptor"}, .program_fd = program->get()}) == "by descriptor\n");
}

TEST_CASE("no_new_privs and a session of its own are set before the program starts") {
  CHECK(run({.argv = {"/bin/grep", "NoNewPrivs", "/proc/self/status"}, .no_new_privs = true}) == "NoNewPrivs:\t1\n");
  CHECK(run({.argv = {"/bin/sh", "-c", "[ $(cut -d' ' -f6 /proc/self/stat) = $$ ] && echo leader"},
             .env = {"PATH=/bin:/usr/bin"},
             .new_session = true}) == "leader\n");
}

TEST_CASE("what cannot be started says at which step, and leaves no child") {
  const auto missing = clone_and_exec({.argv = {"/nonexistent/program"}});
  REQUIRE_FALSE(missing.ok());
  CHECK(missing.error().code() == base::Errc::kNotFound);
  CHECK(missing.error().message().find("/nonexistent/program: exec: ENOENT") != std::string::npos);
  const auto folder = clone_and_exec({.argv = {"/bin/true"}, .working_dir = "/nonexistent"});
  REQUIRE_FALSE(folder.ok());
  CHECK(folder.error().message().find("chdir") != std::string::npos);
  CHECK_FALSE(clone_and_exec({.argv = {"relative"}}).ok());
  CHECK_FALSE(clone_and_exec({.argv = {}}).ok());
  CHECK_FALSE(clone_and_exec({.argv = {"/bin/true"}, .id_map = {{0, 0, 1}}}).ok());
  CHECK_FALSE(clone_and_exec({.argv = {"/bin/true"}, .fds = {{0, 256}}}).ok());
}
