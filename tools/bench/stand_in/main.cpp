// bench-stand-in-vmm: what the bench gives the shim in place of QEMU, to time everything but a machine. It takes QEMU's
// command line, finds the two channels in it, confines itself, and answers both at once. It boots and runs nothing, is
// never installed, and says so in the version that it reports.
#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <cstdio>
#include <optional>
#include <string_view>

#include "base/file.hpp"
#include "tools/bench/stand_in/confine.hpp"
#include "tools/bench/stand_in/guest.hpp"
#include "tools/bench/stand_in/qmp.hpp"

namespace {

using namespace cellrund;
using base::Errc;
using base::Error;

// The descriptor of "-chardev socket,id=<name>,fd=<number>".
std::optional<int> channel(int argc, char** argv, std::string_view name) {
  const std::string start = "socket,id=" + std::string(name) + ",fd=";
  for (int i = 1; i < argc; ++i) {
    const std::string_view word(argv[i]);
    int number = -1;
    if (word.starts_with(start) &&
        std::from_chars(word.data() + start.size(), word.data() + word.size(), number).ec == std::errc()) {
      return number;
    }
  }
  return std::nullopt;
}

// nullopt at the end of the stream: the shim is done with us.
std::optional<base::BytesView> receive(int fd, std::array<std::uint8_t, 65536>& buffer) {
  const ssize_t n = ::recv(fd, buffer.data(), buffer.size(), 0);
  return n > 0 ? std::optional(base::BytesView(buffer.data(), static_cast<std::size_t>(n))) : std::nullopt;
}

base::Status serve(int qmp_fd, int agent_fd, bench::StandInGuest guest) {
  bench::StandInQmp qmp;
  std::array<std::uint8_t, 65536> buffer{};
  for (;;) {
    CR_CHECK(base::write_all(qmp_fd, base::as_bytes(qmp.take_output())));
    CR_CHECK(base::write_all(agent_fd, guest.take_output()));
    // A machine that was not let go reads nothing from its guest's channel.
    std::array<pollfd, 2> polls{{{qmp_fd, POLLIN, 0}, {qmp.running() ? agent_fd : -1, POLLIN, 0}}};
    if (::poll(polls.data(), polls.size(), -1) < 0) {
      return Error::from_errno("poll");
    }
    if (polls[0].revents != 0) {
      const auto bytes = receive(qmp_fd, buffer);
      if (!bytes) {
        return base::ok();
      }
      qmp.feed(base::as_text(*bytes));
    }
    if (polls[1].revents != 0) {
      const auto bytes = receive(agent_fd, buffer);
      if (!bytes) {
        return base::ok();
      }
      CR_CHECK(guest.feed(*bytes));
    }
  }
}

base::Status run(int argc, char** argv) {
  const auto qmp = channel(argc, argv, "qmp");
  const auto agent = channel(argc, argv, "agent");
  if (!qmp || !agent) {
    return Error(Errc::kInvalidArgument, "the command line names no channels qmp and agent");
  }
  wire::Nonce nonce{};
  if (::getrandom(nonce.data(), nonce.size(), 0) != static_cast<ssize_t>(nonce.size())) {
    return Error::from_errno("getrandom");
  }
  CR_CHECK(bench::apply_seccomp());
  return serve(*qmp, *agent, bench::StandInGuest(nonce));
}

}  // namespace

int main(int argc, char** argv) {
  const base::Status done = run(argc, argv);
  if (!done.ok()) {
    const std::string line = "bench-stand-in-vmm: " + done.error().message() + "\n";
    (void)base::write_all(STDERR_FILENO, base::as_bytes(line));  // the shim reports it; stdio would need more calls
  }
  return done.ok() ? 0 : 1;
}
