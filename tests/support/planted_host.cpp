#include "planted_host.hpp"

#include <fcntl.h>
#include <linux/bpf.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <thread>

#include "base/file.hpp"

namespace cellrund::test {
namespace {

void must(bool good, const std::string& what) {
  if (!good) {
    std::fprintf(stderr, "planting failed: %s: %s\n", what.c_str(), ::strerrorname_np(errno));
    std::abort();
  }
}

template <typename T>
T must(base::Result<T> result) {
  if (!result.ok()) {
    std::fprintf(stderr, "planting failed: %s\n", result.error().message().c_str());
    std::abort();
  }
  return std::move(result).value();
}

long bpf(bpf_cmd command, bpf_attr& attribute) { return ::syscall(SYS_bpf, command, &attribute, sizeof attribute); }

}  // namespace

PlantedHost::PlantedHost(std::string tag) : tag_(std::move(tag)) {
  std::string pattern = "/tmp/residue-planted-XXXXXX";
  must(::mkdtemp(pattern.data()) != nullptr, "mkdtemp");
  run_dir_ = pattern;
  for (const char* name : {"cells", "netns", "bpf"}) {
    folder(name);
  }
  must(::mount("bpf", (run_dir_ + "/bpf").c_str(), "bpf", 0, nullptr) == 0, "mount a bpffs");
  mounts_.push_back(run_dir_ + "/bpf");
  const base::UniqueFd router = network_namespace();
  bind_namespace(router.get(), "cr-" + tag_ + "-router");
}

PlantedHost::~PlantedHost() {
  for (const base::PidFd& child : children_) {
    (void)child.signal(SIGKILL);  // the tear-down of a test goes on whatever fails
    (void)child.reap(base::Deadline::after(std::chrono::seconds(5)));
  }
  std::for_each(mounts_.rbegin(), mounts_.rend(), [](const std::string& path) { (void)::umount2(path.c_str(), MNT_DETACH); });
  std::for_each(cgroups_.rbegin(), cgroups_.rend(), [](const std::string& path) { (void)::rmdir(path.c_str()); });
  std::error_code ignored;
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(run_dir_, ignored)) {
    paths.push_back(entry.path());
  }
  std::for_each(paths.rbegin(), paths.rend(), [&](const auto& path) { std::filesystem::remove(path, ignored); });
  std::filesystem::remove(run_dir_, ignored);
}

base::ProcessId PlantedHost::process(const std::vector<int>& fds, const std::string& program,
                                     const std::vector<std::string>& arguments) {
  base::SpawnOptions options;
  options.argv = {program};
  options.argv.insert(options.argv.end(), arguments.begin(), arguments.end());
  int number = 3;
  for (const int fd : fds) {
    options.fds.emplace_back(fd, number++);
  }
  children_.push_back(must(base::spawn(options)));
  return children_.back().id();
}

base::ProcessId PlantedHost::private_mounts(const std::string& script) {
  base::Pipe pipe = must(base::make_pipe());
  base::SpawnOptions options;
  options.argv = {"/usr/bin/unshare", "--mount", "--propagation", "private", "/bin/sh", "-c",
                  script + " && echo ready && exec /bin/sleep 3600"};
  options.env = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin"};
  options.fds = {{pipe.write.get(), 1}};
  children_.push_back(must(base::spawn(options)));
  pipe.write.reset();
  must(must(base::wait_readable(pipe.read.get(), base::Deadline::after(std::chrono::seconds(10)))), "script is ready");
  std::array<char, 8> text{};
  must(::read(pipe.read.get(), text.data(), text.size()) >= 5, "script is ready");
  return children_.back().id();
}

void PlantedHost::kill(const base::ProcessId& id) {
  const auto child = std::find_if(children_.begin(), children_.end(), [&](const base::PidFd& c) { return c.id() == id; });
  must(child != children_.end(), "find the child");
  must(child->signal(SIGKILL));
  must(must(child->reap(base::Deadline::after(std::chrono::seconds(5)))).has_value(), "reap");
  children_.erase(child);
}

void PlantedHost::kill_unreaped(const base::ProcessId& id) {
  const auto child = std::find_if(children_.begin(), children_.end(), [&](const base::PidFd& c) { return c.id() == id; });
  must(child != children_.end(), "find the child");
  must(child->signal(SIGKILL));
  must(must(child->wait_exit(base::Deadline::after(std::chrono::seconds(5)))), "exit");
}

std::string PlantedHost::cgroup(const std::string& hierarchy, const std::string& path) {
  const std::string root = "/sys/fs/cgroup/" + hierarchy;
  for (std::size_t at = path.find('/', 1);; at = path.find('/', at + 1)) {
    const std::string part = root + path.substr(0, at);
    if (!base::exists(part)) {
      must(base::make_dir(part, 0755));
      cgroups_.push_back(part);
    }
    if (at == std::string::npos) {
      return part;
    }
  }
}

void PlantedHost::enter(const std::string& cgroup_folder, const base::ProcessId& id) {
  must(base::write_kernel_file(cgroup_folder + "/cgroup.procs", std::to_string(id.pid)));
}

base::UniqueFd PlantedHost::network_namespace() {
  base::UniqueFd fd;
  std::thread maker([&] {
    must(::unshare(CLONE_NEWNET) == 0, "unshare");
    fd = must(base::open_file("/proc/thread-self/ns/net", O_RDONLY));
  });
  maker.join();
  return fd;
}

std::string PlantedHost::bind_namespace(int fd, const std::string& name) {
  const std::string path = file("netns/" + name);
  const std::string source = "/proc/self/fd/" + std::to_string(fd);
  must(::mount(source.c_str(), path.c_str(), nullptr, MS_BIND, nullptr) == 0, "bind " + path);
  mounts_.push_back(path);
  return path;
}

void PlantedHost::unbind(const std::string& path) {
  must(::umount2(path.c_str(), 0) == 0, "umount " + path);
  must(base::remove_file(path));
  mounts_.erase(std::find(mounts_.begin(), mounts_.end(), path));
}

void PlantedHost::command_in(const std::string& netns_path, const std::vector<std::string>& argv) {
  base::SpawnOptions options;
  options.argv = {"/usr/bin/nsenter", "--net=" + netns_path};
  options.argv.insert(options.argv.end(), argv.begin(), argv.end());
  const auto result = must(base::run_command(options, "", base::Deadline::after(std::chrono::seconds(10))));
  must(result.exit.value == 0, argv.front() + ": " + result.err);
}

base::UniqueFd PlantedHost::bpf_map(const std::string& name) {
  bpf_attr attribute{};
  attribute.map_type = BPF_MAP_TYPE_ARRAY;
  attribute.key_size = 4;
  attribute.value_size = 8;
  attribute.max_entries = 1;
  std::memcpy(attribute.map_name, name.data(), std::min(name.size(), sizeof attribute.map_name - 1));
  base::UniqueFd fd(static_cast<int>(bpf(BPF_MAP_CREATE, attribute)));
  must(fd.valid(), "BPF_MAP_CREATE");
  return fd;
}

base::UniqueFd PlantedHost::bpf_program(const std::string& name) {
  const std::array<bpf_insn, 2> code{{{BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 0}, {BPF_JMP | BPF_EXIT, 0, 0, 0, 0}}};
  bpf_attr attribute{};
  attribute.prog_type = BPF_PROG_TYPE_SCHED_CLS;
  attribute.insns = reinterpret_cast<std::uintptr_t>(code.data());
  attribute.insn_cnt = code.size();
  attribute.license = reinterpret_cast<std::uintptr_t>("GPL");
  std::memcpy(attribute.prog_name, name.data(), std::min(name.size(), sizeof attribute.prog_name - 1));
  base::UniqueFd fd(static_cast<int>(bpf(BPF_PROG_LOAD, attribute)));
  must(fd.valid(), "BPF_PROG_LOAD");
  return fd;
}

base::UniqueFd PlantedHost::bpf_link_to_loopback(int program) {
  constexpr auto kTcxIngress = static_cast<bpf_attach_type>(46);  // linux/bpf.h since 6.6; Debian 12's does not name it
  bpf_attr attribute{};
  attribute.link_create.prog_fd = static_cast<std::uint32_t>(program);
  attribute.link_create.target_ifindex = 1;
  attribute.link_create.attach_type = kTcxIngress;
  base::UniqueFd fd(static_cast<int>(bpf(BPF_LINK_CREATE, attribute)));
  must(fd.valid() || errno == EEXIST, "BPF_LINK_CREATE");
  return fd;
}

void PlantedHost::pin(int fd, const std::string& path) {
  bpf_attr attribute{};
  attribute.pathname = reinterpret_cast<std::uintptr_t>(path.c_str());
  attribute.bpf_fd = static_cast<std::uint32_t>(fd);
  must(bpf(BPF_OBJ_PIN, attribute) == 0, "BPF_OBJ_PIN " + path);
}

std::string PlantedHost::bpf_id(int fd) {
  const std::string text = must(base::read_file("/proc/self/fdinfo/" + std::to_string(fd), 4096));
  for (const std::string_view key : {"map_id:\t", "prog_id:\t"}) {
    const std::size_t at = text.find(key);
    if (at != std::string::npos) {
      const std::size_t start = at + key.size();
      return text.substr(start, text.find('\n', start) - start);
    }
  }
  must(false, "id in fdinfo");
  return {};
}

std::string PlantedHost::folder(const std::string& path) {
  must(base::make_dirs(run_dir_ + "/" + path, 0755));
  return run_dir_ + "/" + path;
}

std::string PlantedHost::file(const std::string& path) {
  (void)must(base::open_file(run_dir_ + "/" + path, O_WRONLY | O_CREAT, 0644));
  return run_dir_ + "/" + path;
}

std::string PlantedHost::fifo(const std::string& path) {
  must(::mkfifo((run_dir_ + "/" + path).c_str(), 0600) == 0, "mkfifo");
  return run_dir_ + "/" + path;
}

base::UniqueFd PlantedHost::socket(const std::string& path) {
  base::UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string full = run_dir_ + "/" + path;
  must(full.size() < sizeof address.sun_path, "socket path fits");
  std::memcpy(address.sun_path, full.c_str(), full.size() + 1);
  must(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0, "bind " + full);
  return fd;
}

std::string identity_of(int fd) {
  const base::FileId id = must(base::file_id(fd));
  return std::to_string(id.dev) + ":" + std::to_string(id.ino);
}

std::string netns_identity_of(int fd) {
  std::uint64_t cookie = 0;
  std::thread visitor([&] {
    must(::setns(fd, CLONE_NEWNET) == 0, "setns");
    const base::UniqueFd probe(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    socklen_t size = sizeof cookie;
    constexpr int kNetnsCookie = 71;  // SO_NETNS_COOKIE
    must(::getsockopt(probe.get(), SOL_SOCKET, kNetnsCookie, &cookie, &size) == 0, "SO_NETNS_COOKIE");
  });
  visitor.join();
  return identity_of(fd) + ":" + std::to_string(cookie);
}

}  // namespace cellrund::test
