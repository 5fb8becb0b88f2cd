// PID 1 of a guest that has been taken over: a child of it stays behind in the guest's own namespaces, with all rights of the
// guest's root, while it becomes the real cell-init. The child waits until a process of the guest has HOSTILE=<behaviour> in
// its environment, which a job's env can give it, and then does it:
//   panic             of the guest's kernel
//   reboot, halt, poweroff
//   clock-1970, clock-2100   sets the wall clock
//   garbage           random bytes into the control channel, through a copy of cell-init's own descriptor
//   oversized         a frame head that promises four gigabytes
#include <dirent.h>
#include <fcntl.h>
#include <linux/reboot.h>
#include <poll.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <cctype>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

constexpr const char* kProc = "/hostile-proc";
constexpr std::string_view kVariable = "HOSTILE=";

std::string read_all(const std::string& path) {
  std::string text;
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  std::array<char, 4096> buffer{};
  for (ssize_t n = 0; file >= 0 && (n = ::read(file, buffer.data(), buffer.size())) > 0;) {
    text.append(buffer.data(), static_cast<std::size_t>(n));
  }
  if (file >= 0) {
    (void)::close(file);
  }
  return text;
}

// The value of HOSTILE in any process's environment; empty while there is none.
std::string wish() {
  std::string found;
  DIR* folder = ::opendir(kProc);
  while (folder != nullptr && found.empty()) {
    const dirent* entry = ::readdir(folder);
    if (entry == nullptr) {
      break;
    }
    if (std::isdigit(static_cast<unsigned char>(entry->d_name[0])) == 0) {
      continue;
    }
    const std::string text = '\0' + read_all(std::string(kProc) + "/" + entry->d_name + "/environ");
    const std::size_t at = text.find('\0' + std::string(kVariable));
    if (at != std::string::npos) {
      found = text.c_str() + at + 1 + kVariable.size();
    }
  }
  if (folder != nullptr) {
    (void)::closedir(folder);
  }
  return found;
}

// A copy of the descriptor by which cell-init holds the control port: the port itself cannot be opened twice.
int channel() {
  const int init = static_cast<int>(::syscall(SYS_pidfd_open, 1, 0));
  for (int fd = 0; fd < 64; ++fd) {
    std::array<char, 256> target{};
    const std::string link = std::string(kProc) + "/1/fd/" + std::to_string(fd);
    if (::readlink(link.c_str(), target.data(), target.size() - 1) > 0 && std::strstr(target.data(), "vport") != nullptr) {
      return static_cast<int>(::syscall(SYS_pidfd_getfd, init, fd, 0));
    }
  }
  return -1;
}

void send_bytes(const std::string& bytes) {
  const int port = channel();
  for (std::size_t sent = 0; sent < bytes.size();) {
    const ssize_t n = ::write(port, bytes.data() + sent, bytes.size() - sent);
    if (n > 0) {
      sent += static_cast<std::size_t>(n);
    } else {
      (void)::poll(nullptr, 0, 10);
    }
  }
}

void set_year(int year) {
  tm date{};
  date.tm_year = year - 1900;
  date.tm_mday = 2;  // the kernel takes no time before that of its boot
  const timespec at{::timegm(&date), 0};
  (void)::clock_settime(CLOCK_REALTIME, &at);
}

std::string random_bytes() {
  std::string bytes(64UL * 1024, '\0');
  std::uint32_t state = 0x9e3779b9;
  for (char& byte : bytes) {
    state = state * 1664525 + 1013904223;
    byte = static_cast<char>(state >> 24U);
  }
  return bytes;
}

void act(const std::string& what) {
  if (what == "panic") {
    const int trigger = ::open((std::string(kProc) + "/sysrq-trigger").c_str(), O_WRONLY);
    (void)!::write(trigger, "c", 1);
  } else if (what == "reboot") {
    (void)::reboot(RB_AUTOBOOT);
  } else if (what == "halt") {
    (void)::reboot(RB_HALT_SYSTEM);
  } else if (what == "poweroff") {
    (void)::reboot(RB_POWER_OFF);
  } else if (what == "clock-1970") {
    set_year(1970);
  } else if (what == "clock-2100") {
    set_year(2100);
  } else if (what == "garbage") {
    send_bytes(random_bytes());
  } else if (what == "oversized") {
    send_bytes(std::string(64, '\xff'));
  }
}

[[noreturn]] void lie_in_wait() {
  (void)::mkdir(kProc, 0700);
  (void)::mount("proc", kProc, "proc", 0, nullptr);
  std::string what;
  while ((what = wish()).empty()) {
    (void)::poll(nullptr, 0, 100);
  }
  (void)::poll(nullptr, 0, 500);  // the job runs by then
  act(what);
  while (true) {
    (void)::pause();
  }
}

}  // namespace

int main() {
  if (::fork() == 0) {
    lie_in_wait();
  }
  ::execl("/cell-init", "/init", nullptr);
  while (true) {
    (void)::reboot(RB_AUTOBOOT);
  }
}
