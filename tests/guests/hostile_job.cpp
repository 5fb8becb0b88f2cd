// A job that misuses what it has, one behaviour an argument. Those that are stopped by a limit and notice it leave with 1.
//   fork          as many processes as it can, which stay; ends once no more can be made
//   fork-hold     the same, and never ends
//   memory        touches memory until it is killed
//   spin          one busy thread a processor, at real-time priority where it may
//   fill DIR      one file until the file system is full
//   inodes DIR    empty files until there is no inode left
//   deep DIR      one folder in the other until there is no inode left
//   flood BYTES   that many bytes to stdout in one line
//   stop          SIGSTOP to itself
//   trace         forks a child, traces and stops it, and itself ignores TERM
//   daemon        leaves its session with a child that ignores TERM and keeps stdout, and ends
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

constexpr std::size_t kBlock = 64UL * 1024;

[[noreturn]] void rest() {
  while (true) {
    (void)::pause();
  }
}

int fork_all(bool hold) {
  (void)::signal(SIGTERM, SIG_IGN);
  int made = 0;
  while (true) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      rest();
    }
    if (pid < 0 && !hold) {
      std::printf("made %d processes: %s\n", made, ::strerrordesc_np(errno));
      return 1;
    }
    made += pid > 0 ? 1 : 0;
  }
}

[[noreturn]] void eat_memory() {
  while (true) {
    void* block = ::mmap(nullptr, kBlock, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (block != MAP_FAILED) {
      std::memset(block, 0x5a, kBlock);
    }
  }
}

[[noreturn]] void spin() {
  (void)::signal(SIGTERM, SIG_IGN);
  const long processors = ::sysconf(_SC_NPROCESSORS_ONLN);
  for (long i = 1; i < processors && ::fork() != 0; ++i) {
  }
  sched_param param{};
  param.sched_priority = ::sched_get_priority_max(SCHED_FIFO);
  const bool real_time = ::sched_setscheduler(0, SCHED_FIFO, &param) == 0;
  std::printf("%s\n", real_time ? "real-time" : "ordinary");
  (void)std::fflush(stdout);
  volatile std::uint64_t count = 0;
  while (true) {
    count = count + 1;
  }
}

int fill(const std::string& folder) {
  static char block[kBlock];
  const int file = ::open((folder + "/fill").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  while (::write(file, block, sizeof block) > 0) {
  }
  std::printf("%s\n", ::strerrordesc_np(errno));
  return 1;
}

int inodes(const std::string& folder) {
  std::uint64_t made = 0;
  while (true) {
    const int file = ::open((folder + "/" + std::to_string(made)).c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file < 0) {
      std::printf("made %llu files: %s\n", static_cast<unsigned long long>(made), ::strerrordesc_np(errno));
      return 1;
    }
    (void)::close(file);
    ++made;
  }
}

int deep(const std::string& folder) {
  std::uint64_t made = 0;
  for (bool more = ::chdir(folder.c_str()) == 0; more; ++made) {
    more = ::mkdir("d", 0700) == 0 && ::chdir("d") == 0;
  }
  std::printf("made %llu folders: %s\n", static_cast<unsigned long long>(made), ::strerrordesc_np(errno));
  return 1;
}

int flood(std::uint64_t bytes) {
  static char block[kBlock];
  std::memset(block, 'x', sizeof block);
  while (bytes > 0) {
    const ssize_t n = ::write(STDOUT_FILENO, block, bytes < sizeof block ? static_cast<std::size_t>(bytes) : sizeof block);
    if (n <= 0) {
      return 1;
    }
    bytes -= static_cast<std::uint64_t>(n);
  }
  return 0;
}

[[noreturn]] void trace() {
  (void)::signal(SIGTERM, SIG_IGN);
  const pid_t child = ::fork();
  if (child == 0) {
    (void)::signal(SIGTERM, SIG_IGN);
    (void)::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
    (void)::raise(SIGSTOP);
    rest();
  }
  (void)::waitpid(child, nullptr, 0);
  rest();
}

int leave_daemon() {
  if (::fork() == 0) {
    (void)::signal(SIGTERM, SIG_IGN);
    (void)::setsid();
    if (::fork() == 0) {
      rest();
    }
    rest();
  }
  std::printf("left\n");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  const std::string where = argc > 2 ? argv[2] : "/scratch";
  if (what == "fork" || what == "fork-hold") {
    return fork_all(what == "fork-hold");
  }
  if (what == "memory") {
    eat_memory();
  }
  if (what == "spin") {
    spin();
  }
  if (what == "fill") {
    return fill(where);
  }
  if (what == "inodes") {
    return inodes(where);
  }
  if (what == "deep") {
    return deep(where);
  }
  if (what == "flood") {
    return flood(std::strtoull(where.c_str(), nullptr, 10));
  }
  if (what == "stop") {
    (void)::signal(SIGTERM, SIG_IGN);
    (void)::kill(::getpid(), SIGSTOP);
    rest();
  }
  if (what == "trace") {
    trace();
  }
  if (what == "daemon") {
    return leave_daemon();
  }
  std::fprintf(stderr, "hostile-job: no behaviour %s\n", what.c_str());
  return 64;
}
