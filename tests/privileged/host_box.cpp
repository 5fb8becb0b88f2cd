// A box is really a box: what a helper inside it can see, do and leave behind. Needs root and user namespaces.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>
#include <signal.h>
#include <unistd.h>

#include "base/file.hpp"
#include "host/box.hpp"

using namespace cellrund;
using namespace cellrund::host;
using namespace std::chrono_literals;

namespace {

BoxResult probe(const std::string& request) {
  auto result = run_box({.program = CELLRUN_BOX_PROBE}, request, base::Deadline::after(20s));
  REQUIRE_MESSAGE(result.ok(), (result.ok() ? "" : result.error().message()));
  return std::move(*result);
}

bool says(const BoxResult& result, const std::string& line) {
  return ("\n" + result.out).find("\n" + line + "\n") != std::string::npos;
}

}  // namespace

TEST_CASE("inside there is no network, no host file, no foreign descriptor and no capability over the host") {
  const BoxResult result = probe("");
  CAPTURE(result.out);
  CHECK(says(result, "uid=0:0"));
  CHECK(says(result, "pid=1"));
  CHECK(says(result, "groups=0"));
  CHECK(says(result, "interfaces=lo "));
  CHECK(says(result, "fds=3"));
  CHECK(says(result, "entered=yes"));
  CHECK(says(result, "root=usr "));
  CHECK(says(result, "usr=read-only"));
  CHECK(says(result, "parent=gone"));
  CHECK(says(result, "kept=yes"));
  CHECK(says(result, "capabilities=1 1 bounding 0 "));
  CHECK(says(result, "no_new_privs=1"));
  CHECK(says(result, "mount=refused"));
  CHECK(says(result, "tmpfs=bounded"));
  CHECK(says(result, "filtered=yes"));
  CHECK(says(result, "survived"));
  CHECK_FALSE(result.exit.signaled);
}

TEST_CASE("a helper that makes a call outside its list dies of it") {
  for (const char* call : {"socket", "exec", "fork", "device", "code"}) {
    CAPTURE(call);
    const BoxResult result = probe(call);
    CHECK(says(result, "filtered=yes"));
    CHECK_FALSE(says(result, "survived"));
    CHECK(result.exit.signaled);
    CHECK(result.exit.value == SIGSYS);
  }
}

TEST_CASE("outside, a box runs as its own unprivileged ids in namespaces of its own, and dies at its deadline") {
  auto out = base::make_pipe();
  REQUIRE(out.ok());
  const auto box = start_box({.program = CELLRUN_BOX_PROBE}, "hang", out->write.get(), -1);
  REQUIRE(box.ok());
  out->write.reset();
  std::string said;
  while (said.find("filtered=yes") == std::string::npos) {
    std::array<char, 512> buffer{};
    REQUIRE(base::wait_readable(out->read.get(), base::Deadline::after(20s)).value());
    const ssize_t n = ::read(out->read.get(), buffer.data(), buffer.size());
    REQUIRE(n > 0);
    said.append(buffer.data(), static_cast<std::size_t>(n));
  }
  const std::string proc = "/proc/" + std::to_string(box->id().pid);
  const std::string status = base::read_file(proc + "/status", 65536).value();
  const std::string id = std::to_string(BoxIds{}.base);
  CHECK(status.find("Uid:\t" + id + "\t" + id + "\t" + id + "\t" + id) != std::string::npos);
  CHECK(status.find("Gid:\t" + id + "\t" + id + "\t" + id + "\t" + id) != std::string::npos);
  CHECK(status.find("NoNewPrivs:\t1") != std::string::npos);
  CHECK(status.find("Seccomp:\t2") != std::string::npos);
  for (const char* name : {"user", "mnt", "pid", "net", "ipc", "uts", "cgroup"}) {
    CAPTURE(name);
    CHECK(base::file_id(proc + "/ns/" + name).value() != base::file_id(std::string("/proc/self/ns/") + name).value());
  }
  REQUIRE(box->signal(SIGKILL).ok());
  CHECK(box->reap(base::Deadline::after(10s)).value().has_value());

  const auto late = run_box({.program = CELLRUN_BOX_PROBE}, "hang", base::Deadline::after(500ms));
  REQUIRE_FALSE(late.ok());
  CHECK(late.error().code() == base::Errc::kDeadlineExceeded);
}

TEST_CASE("a box that says too much is cut off") {
  const auto loud = run_box({.program = CELLRUN_BOX_PROBE}, "", base::Deadline::after(20s), 16);
  REQUIRE_FALSE(loud.ok());
  CHECK(loud.error().code() == base::Errc::kResourceExhausted);
}

TEST_CASE("a helper that does not exist is named") {
  const auto missing = run_box({.program = "/nonexistent/helper"}, "", base::Deadline::after(5s));
  REQUIRE_FALSE(missing.ok());
  CHECK(missing.error().message().find("/nonexistent/helper") != std::string::npos);
}

int main(int argc, char** argv) {
  if (::geteuid() != 0) {
    std::fprintf(stderr, "skipped: needs root\n");
    return 77;
  }
  if (!base::exists("/proc/self/ns/user")) {
    std::fprintf(stderr, "skipped: needs user namespaces\n");
    return 77;
  }
  doctest::Context context(argc, argv);
  return context.run();
}
