// What confine_shim() and confine_broker() leave to a process, tried in a child that has done it; and the broker itself, asked by
// one that means it no good.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>

#include "base/file.hpp"
#include "base/json.hpp"
#include "base/log.hpp"
#include "host/process_facts.hpp"
#include "shim/broker.hpp"
#include "shim/confinement.hpp"

using namespace cellrund;
namespace fs = std::filesystem;

namespace {

constexpr std::uint64_t kBrokers = (1U << 5U) | (1U << 2U);  // CAP_KILL, CAP_DAC_READ_SEARCH
constexpr std::chrono::seconds kPatience(20);
constexpr unsigned long kFioSetOwn = 0x8901;  // asm-generic/sockios.h

// 0 when `probe` returned true in a child after `confine`; 2: not confined; 1 otherwise.
int in_child(const std::function<bool()>& confine, const std::function<bool()>& probe) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    if (!confine()) {
      ::_exit(2);
    }
    ::_exit(probe() ? 0 : 1);
  }
  int status = 0;
  if (pid < 0 || ::waitpid(pid, &status, 0) != pid || !WIFEXITED(status)) {
    return 3;
  }
  return WEXITSTATUS(status);
}
int as_shim(const std::function<bool()>& probe, const std::vector<std::string>& readable = {}) {
  return in_child([&] { return shim::confine_shim(readable).ok(); }, probe);
}
int as_broker(shim::Events events, const std::function<bool()>& probe) {
  return in_child([&] { return shim::confine_broker(events).ok(); }, probe);
}

bool denied(long result) { return result < 0 && errno == EPERM; }
bool has_landlock() { return ::syscall(SYS_landlock_create_ruleset, nullptr, 0, 1U) > 0; }

bool is_confined(const std::string& status, std::uint64_t capabilities) {
  const auto found = host::parse_credentials(status);
  return found.ok() && found->no_new_privs && found->seccomp == 2 && found->capabilities[0] == 0 &&
         found->capabilities[1] == capabilities && found->capabilities[2] == capabilities &&
         found->capabilities[3] == capabilities && found->capabilities[4] == 0;
}

// A process that waits to be killed, as another user's when it stands for a VMM.
class Victim {
 public:
  explicit Victim(uid_t uid = 65534) : pid_(::fork()) {
    if (pid_ == 0) {
      if (uid != 0 && ::setresuid(uid, uid, uid) != 0) {
        ::_exit(1);
      }
      for (;;) {
        ::pause();
      }
    }
    process_ = base::PidFd::open(pid_).value();
  }
  Victim(const Victim&) = delete;
  Victim& operator=(const Victim&) = delete;
  ~Victim() {
    (void)process_.signal(SIGKILL);
    (void)process_.reap(base::Deadline::after(kPatience));
  }
  [[nodiscard]] const base::PidFd& process() const { return process_; }
  [[nodiscard]] bool dead_within(base::Nanoseconds time) const { return process_.wait_exit(base::Deadline::after(time)).value(); }
  [[nodiscard]] bool alive() const { return base::is_alive(process_.id()); }

 private:
  pid_t pid_;
  base::PidFd process_;
};

class Folder {
 public:
  Folder() {
    std::string path = (fs::temp_directory_path() / "broker-XXXXXX").string();
    REQUIRE(::mkdtemp(path.data()) != nullptr);
    path_ = path;
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() { fs::remove_all(path_); }
  [[nodiscard]] std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// A broker, its VMM, and the raw end of its socket.
struct Cell {
  explicit Cell(std::optional<base::Nanoseconds> deadline = std::nullopt) {
    shim::BrokerDuties duties{.vmm = vmm.process().fd(),
                              .group = nullptr,
                              .bundle = folder.path(),
                              .socket_path = folder / "shim.sock",
                              .facts = {},
                              .active_deadline = deadline,
                              .grace = base::Nanoseconds(0),
                              .publisher = {.ttrpc_address = folder / "events.sock",
                                            .grpc_address = "",
                                            .publish_binary = "",
                                            .containerd_namespace = "ns"},
                              .source = {"task-1", vmm.process().id().pid, ""}};
    duties.facts.vmm = vmm.process().id();
    socket = shim::start_broker(duties).value();
    REQUIRE(shim::receive_answer(socket.get()).ok());
    std::ifstream children("/proc/self/task/" + std::to_string(::getpid()) + "/children");
    for (pid_t pid = 0; children >> pid;) {
      if (base::read_file("/proc/" + std::to_string(pid) + "/comm", 64).value() == "cellrun-broker\n") {
        broker = base::PidFd::open(pid).value();
      }
    }
    REQUIRE(broker.valid());
  }
  Cell(const Cell&) = delete;
  Cell& operator=(const Cell&) = delete;
  ~Cell() {
    (void)broker.signal(SIGKILL);
    (void)broker.reap(base::Deadline::after(kPatience));
  }

  [[nodiscard]] bool send(const shim::Request& request, const std::string& text = {}) const {
    std::string bytes(reinterpret_cast<const char*>(&request), sizeof(request));
    bytes += text;
    return ::send(socket.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(bytes.size());
  }
  [[nodiscard]] base::Result<base::UniqueFd> ask(const shim::Request& request, const std::string& text = {}) const {
    return send(request, text) ? shim::receive_answer(socket.get()) : base::Error(base::Errc::kUnknown, "send");
  }
  [[nodiscard]] bool over() const { return vmm.dead_within(kPatience) && broker.wait_exit(base::Deadline::after(kPatience)).value(); }

  Folder folder;
  Victim vmm;
  base::UniqueFd socket;
  base::PidFd broker;
};

}  // namespace

TEST_CASE("no capability stays with the shim, CAP_KILL and CAP_DAC_READ_SEARCH with the broker; both have no_new_privs and a filter") {
  // Opened before: the shim may not, and the kernel writes what it has when it is read.
  const auto as = [](std::uint64_t capabilities, int status) {
    const auto text = base::read_fd(status, 65536);
    return text.ok() && is_confined(*text, capabilities);
  };
  int status = -1;
  const auto open_status = [&status] { return (status = ::open("/proc/self/status", O_RDONLY | O_CLOEXEC)) >= 0; };
  CHECK(in_child([&] { return open_status() && shim::confine_shim({}).ok(); }, [&] { return as(0, status); }) == 0);
  CHECK(as_broker(shim::Events::kSocket, [&] { return open_status() && as(kBrokers, status); }) == 0);
}

TEST_CASE("what leads to other processes, namespaces, mounts, the kernel or the network is denied to both") {
  const std::vector<std::pair<const char*, std::function<bool()>>> probes{
      {"ptrace", [] { return denied(::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr)); }},
      {"unshare", [] { return denied(::unshare(CLONE_NEWUTS)); }},
      {"setns", [] { return denied(::setns(0, 0)); }},
      {"mount", [] { return denied(::mount("none", "/tmp", "tmpfs", 0, nullptr)); }},
      {"bpf", [] { return denied(::syscall(SYS_bpf, 0, nullptr, 0)); }},
      {"setuid", [] { return denied(::setuid(0)); }},
      {"capset", [] { return denied(::syscall(SYS_capset, nullptr, nullptr)); }},
      {"io_uring", [] { return denied(::syscall(SYS_io_uring_setup, 1, nullptr)); }},
      {"seccomp", [] { return denied(::syscall(SYS_seccomp, 0, 0, nullptr)); }},
      {"AF_INET", [] { return denied(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)); }},
      {"AF_NETLINK", [] { return denied(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0)); }},
      {"AF_VSOCK", [] { return denied(::socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0)); }},
      {"fork", [] { return denied(::fork()); }},
      {"execve", [] {
         char* const none[] = {nullptr};
         return denied(::execve("/bin/true", none, none));
       }},
  };
  for (const auto& [name, probe] : probes) {
    CAPTURE(name);
    CHECK(as_shim(probe) == 0);
    CHECK(as_broker(shim::Events::kSocket, probe) == 0);
  }
}

TEST_CASE("the shim signals, limits and slows down nobody, root's processes neither") {
  const Victim other(0);
  const pid_t pid = other.process().id().pid;
  const int pidfd = other.process().fd();
  const base::Pipe pipe = base::make_pipe().value();
  const std::vector<std::pair<const char*, std::function<bool()>>> probes{
      {"kill", [&] { return denied(::kill(pid, SIGKILL)); }},
      {"kill itself", [] { return denied(::kill(::getpid(), SIGKILL)); }},
      {"tgkill", [&] { return denied(::syscall(SYS_tgkill, pid, pid, SIGKILL)); }},
      {"tkill", [&] { return denied(::syscall(SYS_tkill, pid, SIGKILL)); }},
      {"sigqueue", [&] { return denied(::sigqueue(pid, SIGKILL, {})); }},
      {"pidfd_open", [&] { return denied(::syscall(SYS_pidfd_open, pid, 0)); }},
      {"pidfd_send_signal", [&] { return denied(::syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, nullptr, 0)); }},
      {"F_SETOWN", [&] { return denied(::fcntl(pipe.read.get(), F_SETOWN, pid)); }},
      {"F_SETOWN, with bits that the kernel does not read",
       [&] { return denied(::syscall(SYS_fcntl, pipe.read.get(), F_SETOWN | (1L << 40U), pid)); }},
      {"FIOSETOWN", [&] { return denied(::ioctl(pipe.read.get(), kFioSetOwn, &pid)); }},
      {"prlimit", [&] {
         const rlimit none{0, 0};
         return denied(::syscall(SYS_prlimit64, pid, RLIMIT_CPU, &none, nullptr));
       }},
      {"setpriority", [&] { return denied(::setpriority(PRIO_PROCESS, static_cast<id_t>(pid), 19)); }},
  };
  for (const auto& [name, probe] : probes) {
    CAPTURE(name);
    CHECK(as_shim(probe) == 0);
    CHECK(other.alive());
  }
}

TEST_CASE("the shim opens nothing for writing, changes no name, and reads below its folders alone") {
  const Folder folder;
  const std::string file = folder / "file", other = folder / "other";
  std::ofstream(file) << "text";
  const int dir = ::open(folder.path().c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  const std::vector<std::pair<const char*, std::function<bool()>>> probes{
      {"write", [&] { return denied(::open(file.c_str(), O_WRONLY | O_CLOEXEC)); }},
      {"read and write", [&] { return denied(::open(file.c_str(), O_RDWR | O_CLOEXEC)); }},
      {"neither, for ioctl", [&] { return denied(::open(file.c_str(), O_ACCMODE | O_CLOEXEC)); }},
      {"truncate by open", [&] { return denied(::open(file.c_str(), O_RDONLY | O_TRUNC | O_CLOEXEC)); }},
      {"create", [&] { return denied(::open(other.c_str(), O_RDONLY | O_CREAT | O_CLOEXEC, 0600)); }},
      {"by the old call", [&] { return denied(::syscall(SYS_open, file.c_str(), O_WRONLY)); }},
      {"by an open folder", [&] { return denied(::openat(dir, "file", O_WRONLY | O_CLOEXEC)); }},
      {"openat2", [&] { return denied(::syscall(SYS_openat2, dir, "file", nullptr, 0)); }},
      {"truncate", [&] { return denied(::truncate(file.c_str(), 0)); }},
      {"rename", [&] { return denied(::rename(file.c_str(), other.c_str())); }},
      {"unlink", [&] { return denied(::unlink(file.c_str())); }},
      {"mkdir", [&] { return denied(::mkdir(other.c_str(), 0700)); }},
      {"symlink", [&] { return denied(::symlink(file.c_str(), other.c_str())); }},
      {"chmod", [&] { return denied(::chmod(file.c_str(), 0777)); }},
  };
  for (const auto& [name, probe] : probes) {
    CAPTURE(name);
    CHECK(as_shim(probe, {folder.path()}) == 0);
  }
  CHECK(as_shim([&] { return base::read_file(file, 64).ok(); }, {folder.path()}) == 0);
  CHECK(base::read_file(file, 64).value() == "text");
  CHECK_FALSE(base::exists(other));
  ::close(dir);
  if (has_landlock()) {
    CHECK(as_shim([&] { return ::open(file.c_str(), O_RDONLY | O_CLOEXEC) < 0 && errno == EACCES; }) == 0);
    CHECK(as_shim([] { return ::open("/proc/self/status", O_RDONLY | O_CLOEXEC) < 0 && errno == EACCES; }) == 0);
  } else {
    MESSAGE("this kernel has no Landlock: reading is not held back");
  }
}

TEST_CASE("the shim connects to nobody, and goes on to serve who is connected") {
  const Folder folder;
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  (folder / "s").copy(name.sun_path, sizeof(name.sun_path) - 1);
  const auto* const address = reinterpret_cast<const sockaddr*>(&name);
  const base::UniqueFd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)), fresh(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const base::UniqueFd client(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  REQUIRE(::bind(listener.get(), address, sizeof(name)) == 0);
  REQUIRE(::listen(listener.get(), 1) == 0);
  REQUIRE(::connect(client.get(), address, sizeof(name)) == 0);
  CHECK(as_shim([] { return denied(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)); }) == 0);
  CHECK(as_shim([] {
          int pair[2];
          return denied(::socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, pair));
        }) == 0);
  CHECK(as_shim([&] { return denied(::connect(fresh.get(), address, sizeof(name))); }) == 0);
  CHECK(as_shim([&] { return denied(::bind(fresh.get(), address, sizeof(name))); }) == 0);
  CHECK(as_shim([&] { return denied(::listen(fresh.get(), 1)); }) == 0);
  CHECK(as_shim([&] { return ::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC) >= 0; }) == 0);
}

TEST_CASE("the broker kills another user's process, runs a command for an event only where it must") {
  const Victim other;
  CHECK(as_broker(shim::Events::kSocket, [&] { return other.process().signal(SIGKILL).ok(); }) == 0);
  CHECK(other.dead_within(kPatience));
  CHECK(as_broker(shim::Events::kSocket, [] { return ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0) >= 0; }) == 0);
  CHECK(as_broker(shim::Events::kCommands, [] {
          const pid_t pid = ::fork();
          if (pid == 0) {
            char* const none[] = {nullptr};
            (void)::execve("/bin/true", none, none);
            ::_exit(1);
          }
          int status = 1;
          return pid > 0 && ::waitpid(pid, &status, 0) == pid && status == 0;
        }) == 0);
}

TEST_CASE("a broker has two capabilities, and three descriptors of the shim's: the log, the VMM and the socket") {
  const Cell cell;
  const std::string at = "/proc/" + std::to_string(cell.broker.id().pid);
  CHECK(is_confined(base::read_file(at + "/status", 65536).value(), kBrokers));
  int foreign = 0;
  const std::vector<std::string> open = base::list_dir(at + "/fd", 256).value();
  for (const std::string& fd : open) {
    const std::string target = fs::read_symlink(at + "/fd/" + fd).string();
    foreign += std::stoi(fd) > 2 && !target.starts_with("anon_inode:") && !target.starts_with("socket:") &&
               !target.starts_with("pidfd:") ? 1 : 0;
  }
  CHECK(foreign == 0);
  CHECK(cell.vmm.alive());
}

TEST_CASE("a broker kills its VMM when it is asked to, and when nobody can ask any more") {
  const Cell asked;
  CHECK(asked.send({.ask = shim::Ask::kKill}));
  CHECK(asked.vmm.dead_within(kPatience));
  Cell left;
  left.socket.reset();
  CHECK(left.over());
}

TEST_CASE("a broker kills its VMM after the deadline, whatever its shim does") {
  const Cell cell(std::chrono::milliseconds(100));
  CHECK(cell.ask({.ask = shim::Ask::kStarted, .seconds = base::BootTime::now().ns}, "6.1.0").ok());
  const auto facts = base::json::parse(base::read_file(cell.folder / "cellrun-vm.json", 65536).value(), {.max_bytes = 65536});
  REQUIRE(facts.ok());
  CHECK(*facts->find("guestKernelRelease")->as_string() == "6.1.0");
  CHECK(*facts->find("vmm")->find("pid")->as_int() == cell.vmm.process().id().pid);
  CHECK(cell.vmm.dead_within(kPatience));
}

TEST_CASE("what no honest shim sends ends the cell") {
  const auto ends = [](const shim::Request& request, const std::string& text = {}) {
    const Cell cell;
    return cell.send(request, text) && cell.over();
  };
  CHECK(ends({.ask = static_cast<shim::Ask>(0)}));
  CHECK(ends({.ask = static_cast<shim::Ask>(99)}));
  CHECK(ends({.ask = shim::Ask::kPublish, .detail = shim::kTopics}));
  CHECK(ends({.ask = shim::Ask::kPublish, .detail = 5}, std::string(shim::kMaxExecId + 1, 'x')));
  CHECK(ends({.ask = shim::Ask::kEnded}, std::string(shim::kMaxRequestText + 1, 'x')));
  CHECK(ends({.ask = shim::Ask::kStarted, .seconds = 0}));
  CHECK(ends({.ask = shim::Ask::kStarted, .seconds = std::numeric_limits<std::int64_t>::max()}));
  const Cell cell;
  CHECK(::send(cell.socket.get(), "x", 1, MSG_NOSIGNAL) == 1);
  CHECK(cell.over());
  const Cell twice;
  CHECK(twice.ask({.ask = shim::Ask::kStarted, .seconds = 1}).ok());
  CHECK(twice.send({.ask = shim::Ask::kStarted, .seconds = 1}));
  CHECK(twice.over());
}

TEST_CASE("a broker opens FIFOs of root's and nothing else, and says why not") {
  const Cell cell;
  const std::string fifo = cell.folder / "fifo", link = cell.folder / "link", file = cell.folder / "file", others = cell.folder / "others";
  REQUIRE(::mkfifo(fifo.c_str(), 0600) == 0);
  REQUIRE(::mkfifo(others.c_str(), 0666) == 0);
  REQUIRE(::chown(others.c_str(), 65534, 65534) == 0);
  REQUIRE(::symlink(fifo.c_str(), link.c_str()) == 0);
  std::ofstream(file) << "text";
  const auto open = [&](const std::string& path, std::uint32_t writing = 1) {
    return cell.ask({.ask = shim::Ask::kOpenFifo, .detail = writing}, path);
  };
  const auto both = open(fifo);
  REQUIRE(both.ok());
  REQUIRE(both->valid());
  CHECK(::write(both->get(), "x", 1) == 1);
  const auto reading = open("fifo://" + fifo, 0);
  REQUIRE(reading.ok());
  REQUIRE(reading->valid());
  CHECK((::fcntl(reading->get(), F_GETFL) & (O_ACCMODE | O_NONBLOCK)) == (O_RDONLY | O_NONBLOCK));
  CHECK((::fcntl(reading->get(), F_GETFD) & FD_CLOEXEC) != 0);
  for (const std::string& refused : {link, file, others, cell.folder / "missing", std::string("/dev/null"), std::string("relative"),
                                     std::string(), "/" + std::string(5000, 'x'), fifo + std::string(1, '\0'), cell.folder.path()}) {
    CAPTURE(refused.substr(0, 64));
    const auto answer = open(refused);
    REQUIRE_FALSE(answer.ok());
    CHECK(answer.error().code() != base::Errc::kDataLoss);
    CHECK(answer.error().message().find("standard stream") != std::string::npos);
  }
  const auto scheme = open("binary:///bin/true");
  REQUIRE_FALSE(scheme.ok());
  CHECK(scheme.error().code() == base::Errc::kUnimplemented);
  CHECK(cell.vmm.alive());
}

TEST_CASE("a broker that is told to leave ends by itself, and takes the shim's socket along") {
  const Cell cell;
  std::ofstream(cell.folder / "shim.sock") << "";
  CHECK(cell.ask({.ask = shim::Ask::kEnded}, "{}").ok());
  CHECK(base::read_file(cell.folder / "cellrun-exit.json", 64).value() == "{}\n");
  CHECK(cell.send({.ask = shim::Ask::kPublish, .detail = static_cast<std::uint32_t>(shim::Topic::kExit)}));  // to nobody: it does not wait forever
  CHECK(cell.send({.ask = shim::Ask::kLeave}));
  CHECK(cell.over());
  CHECK_FALSE(base::exists(cell.folder / "shim.sock"));
}

int main(int argc, char** argv) {
  if (::getuid() != 0) {
    std::puts("SKIP: needs root");
    return 77;
  }
  base::log::init("shim-confinement", base::log::Level::kError);  // to stderr, which no child has in a buffer twice
  doctest::Context context(argc, argv);
  return context.run();
}
