// cellrun-collect: takes what one cell hands over of /outputs. Runs in a box (host/box.hpp); it confines itself further,
// down to the descriptors that it holds, before it reads a byte of the archive. Started by cellrund alone, not for use by
// hand.
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>

#include "base/file.hpp"
#include "cell/collect/answer.hpp"
#include "cell/collect/collection.hpp"
#include "crypto/digest.hpp"
#include "host/confine.hpp"

namespace {

using namespace cellrund;
using namespace cellrund::cell;

constexpr std::uint64_t kAddressSpace = 256ULL << 20U;
constexpr std::uint64_t kCpuSeconds = 30;
constexpr std::uint64_t kBytesPerCpuSecond = 8ULL << 20U;  // slower than any machine hashes and copies
// What was on its way when the cell ended arrives at once.
constexpr int kLastBytesMs = 500;

base::Status confine(const collect::Request& request) {
  host::RootPlan nothing;
  nothing.tmpfs_bytes = 4096;
  nothing.tmpfs_inodes = 2;
  CR_CHECK(host::enter_private_root(nothing));
  CR_CHECK(host::keep_capabilities({}));
  CR_CHECK(host::set_limits({.address_space_bytes = kAddressSpace,
                             .cpu_seconds = kCpuSeconds + collect::archive_limit(request) / kBytesPerCpuSecond,
                             .open_files = 16,
                             .file_bytes = request.max_bytes}));
  return host::apply_seccomp(host::SeccompProfile::kCollector);
}

// Readable descriptors of the two, or none when both were silent for `timeout_ms`; -1 waits for ever.
struct Ready {
  bool input = false;
  bool stop = false;
};
base::Result<Ready> wait(int input, int stop, int timeout_ms) {
  std::array<pollfd, 2> polls{{{input, POLLIN, 0}, {stop, POLLIN, 0}}};
  while (::poll(polls.data(), polls.size(), timeout_ms) < 0) {
    if (errno != EINTR) {
      return base::Error::from_errno("poll");
    }
  }
  return Ready{polls[0].revents != 0, polls[1].revents != 0};
}

// Reads the archive into `collection`; why it is not all of it, or empty.
base::Result<std::string> read_archive(const collect::Request& request, collect::Collection& collection) {
  const Ready first = CR_TRY(wait(collect::kListenFd, collect::kStopFd, -1));
  if (!first.input) {
    return std::string("the cell handed nothing over");
  }
  const base::UniqueFd input(::accept4(collect::kListenFd, nullptr, nullptr, SOCK_CLOEXEC));
  if (!input) {
    return base::Error::from_errno("accept");
  }
  (void)::close(collect::kListenFd);  // one cell, one connection
  wire::ArchiveReader reader(collection);
  std::array<std::uint8_t, 65536> buffer;  // NOLINT(cppcoreguidelines-pro-type-member-init): filled by read
  std::uint64_t total = 0;
  bool stopped = false;
  while (true) {
    const Ready ready = CR_TRY(wait(input.get(), stopped ? -1 : collect::kStopFd, stopped ? kLastBytesMs : -1));
    stopped = stopped || ready.stop;
    if (!ready.input) {
      if (ready.stop) {
        continue;
      }
      return std::string("the cell was gone before it had handed all over");
    }
    const ssize_t n = ::read(input.get(), buffer.data(), buffer.size());
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) {
      continue;
    }
    if (n <= 0) {
      return std::string(total == 0 ? "the cell handed nothing over" : "the archive ends before its end");
    }
    total += static_cast<std::uint64_t>(n);
    if (total > collect::archive_limit(request)) {
      return std::string("the archive is over its budget");
    }
    if (const auto fed = reader.feed({buffer.data(), static_cast<std::size_t>(n)}); !fed.ok()) {
      return fed.error().message();
    }
    if (collection.failure().has_value()) {
      return std::string();  // finish() tells
    }
    if (reader.ended()) {
      (void)base::write_all(input.get(), {&wire::kArchiveTaken, 1});  // a guest that is gone needs no answer
      return std::string();
    }
  }
}

base::Status run() {
  const std::string text = CR_TRY(base::read_fd(0, 4096));
  const collect::Request request = CR_TRY(collect::parse_request(text));
  (void)::signal(SIGPIPE, SIG_IGN);
  (void)crypto::sha256({});  // libcrypto sets itself up at its first use: before the filter
  CR_CHECK(confine(request));
  collect::Collection collection(request, collect::kDataFd);
  std::string why = CR_TRY(read_archive(request, collection));
  const model::OutputFacts facts = collection.finish(std::move(why));
  return base::write_all(1, base::as_bytes(collect::write_answer(facts)));
}

}  // namespace

int main() {
  const auto status = run();
  if (!status.ok()) {
    (void)base::write_all(2, base::as_bytes("cellrun-collect: " + status.error().message() + "\n"));
    return 1;
  }
  return 0;
}
