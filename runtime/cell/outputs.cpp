#include "cell/outputs.hpp"

#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "base/clock.hpp"
#include "base/file.hpp"
#include "cell/collect/answer.hpp"
#include "cell/output_store.hpp"
#include "host/box.hpp"

namespace cellrund::cell {
namespace {

using base::Deadline;
using base::Errc;
using base::Error;
using model::ItemKind;

constexpr const char* kRole = "collector";
constexpr std::chrono::seconds kAnswerPatience{10};
constexpr std::chrono::seconds kKillPatience{5};

base::Result<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return Error(Errc::kInvalidArgument, path + " is too long for a socket path");
  }
  path.copy(address.sun_path, path.size());
  return address;
}

base::Result<base::UniqueFd> stream_socket() {
  base::UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) {
    return Error::from_errno("socket");
  }
  return fd;
}

base::Result<base::UniqueFd> listen_at(const std::string& path) {
  const sockaddr_un address = CR_TRY(address_of(path));
  base::UniqueFd fd = CR_TRY(stream_socket());
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 || ::listen(fd.get(), 1) != 0) {
    return Error::from_errno("listen at " + path);
  }
  return fd;
}

// The collector's answer up to its end of file.
base::Result<std::string> read_answer(int fd, Deadline deadline) {
  std::string text;
  std::array<char, 65536> buffer;  // NOLINT(cppcoreguidelines-pro-type-member-init): filled by read
  while (CR_TRY(base::wait_readable(fd, deadline))) {
    const ssize_t n = ::read(fd, buffer.data(), buffer.size());
    if (n == 0) {
      return text;
    }
    if (n < 0) {
      if (errno == EINTR) {
        continue;
      }
      return Error::from_errno("read the collector's answer");
    }
    if (text.size() + static_cast<std::size_t>(n) > collect::kMaxAnswer) {
      return Error(Errc::kResourceExhausted, "the collector's answer is too long");
    }
    text.append(buffer.data(), static_cast<std::size_t>(n));
  }
  return Error(Errc::kDeadlineExceeded, "the collector gives no answer");
}

}  // namespace

std::string outputs_socket(const std::string& cell_folder) { return cell_folder + "/outputs"; }

base::Result<base::UniqueFd> connect_outputs(const std::string& cell_folder) {
  const std::string path = outputs_socket(cell_folder);
  const sockaddr_un address = CR_TRY(address_of(path));
  base::UniqueFd fd = CR_TRY(stream_socket());
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return Error::from_errno("connect to " + path);
  }
  return fd;
}

model::Inventory OutputCollector::intended(const std::string& cell_folder) {
  return {{ItemKind::kProcess, kRole, ""}, {ItemKind::kSocket, outputs_socket(cell_folder), ""}};
}

base::Result<OutputCollector> OutputCollector::start(const Options& options, model::Journal& journal) {
  const std::string path = outputs_socket(options.cell_folder);
  base::UniqueFd data = CR_TRY(create_outputs(options.job_folder, options.budget.max_bytes));
  const base::UniqueFd listener = CR_TRY(listen_at(path));
  const base::FileId id = CR_TRY(base::file_id(path));
  CR_CHECK(journal.created({ItemKind::kSocket, path, std::to_string(id.dev) + ":" + std::to_string(id.ino)}));
  base::Pipe stop = CR_TRY(base::make_pipe());
  base::Pipe answer = CR_TRY(base::make_pipe());
  host::BoxOptions box;
  box.program = options.program;
  box.fds = {{listener.get(), collect::kListenFd}, {stop.read.get(), collect::kStopFd}, {data.get(), collect::kDataFd}};
  box.die_with_caller = true;  // the cell thread lives until the job is closed
  const std::string request = collect::write_request({options.budget.max_bytes, options.budget.max_files});
  base::PidFd process = CR_TRY(host::start_box(box, request, answer.write.get(), -1));
  const base::ProcessId who = process.id();
  OutputCollector collector(options, std::move(process), std::move(stop.write), std::move(answer.read), std::move(data));
  CR_CHECK(journal.created({ItemKind::kProcess, kRole, std::to_string(who.pid) + ":" + std::to_string(who.start_time)}));
  return collector;
}

OutputCollector::~OutputCollector() {
  if (process_.valid()) {
    (void)process_.signal(SIGKILL);
    (void)process_.reap(Deadline::after(kKillPatience));  // what survives shows in the scan
  }
}

base::Result<model::OutputFacts> OutputCollector::finish() {
  stop_.reset();
  const auto text = read_answer(answer_.get(), Deadline::after(kAnswerPatience));
  if (!text.ok()) {
    (void)process_.signal(SIGKILL);
  }
  const auto exit = process_.reap(Deadline::after(kKillPatience));
  if (!exit.ok() || !exit->has_value()) {
    return Error(Errc::kDeadlineExceeded, "the collector does not end");
  }
  process_ = base::PidFd();
  if (!text.ok()) {
    return text.error().clone();
  }
  if ((*exit)->signaled || (*exit)->value != 0) {
    return Error(Errc::kUnknown, "the collector " + std::string((*exit)->signaled ? "died of signal " : "left with code ") +
                                     std::to_string((*exit)->value));
  }
  model::OutputFacts facts =
      CR_TRY(collect::parse_answer(*text, {options_.budget.max_bytes, options_.budget.max_files}));
  CR_CHECK(store_outputs(options_.job_folder, data_.get(), facts));
  return facts;
}

}  // namespace cellrund::cell
