// A helper program for tests of the box: confines itself as the product's helpers do, tells what it can see and do, and
// then makes the system call that it was asked for, which the filter must not let pass.
#include <fcntl.h>
#include <linux/capability.h>
#include <net/if.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cstdio>

#include "base/file.hpp"
#include "host/confine.hpp"

using namespace cellrund;

namespace {

void tell(const char* key, const std::string& value) {
  (void)std::printf("%s=%s\n", key, value.c_str());
}

std::string interfaces() {
  std::string out;
  struct if_nameindex* list = ::if_nameindex();
  for (struct if_nameindex* at = list; at != nullptr && at->if_index != 0; ++at) {
    out += std::string(at->if_name) + " ";
  }
  ::if_freenameindex(list);
  return out;
}

std::string capabilities() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, 2> data{};
  (void)::syscall(SYS_capget, &header, data.data());
  std::string bounding;
  for (int capability = 0; capability < 41; ++capability) {
    if (::prctl(PR_CAPBSET_READ, capability, 0, 0, 0) == 1) {
      bounding += std::to_string(capability) + " ";
    }
  }
  return std::to_string(data[0].effective) + " " + std::to_string(data[0].permitted) + " bounding " + bounding;
}

}  // namespace

int main() {
  const auto request = base::read_fd(0, 64);
  tell("uid", std::to_string(::getuid()) + ":" + std::to_string(::getgid()));
  tell("pid", std::to_string(::getpid()));
  tell("groups", std::to_string(::getgroups(0, nullptr)));
  tell("interfaces", interfaces());
  const auto fds = base::list_dir("/proc/self/fd", 100);
  tell("fds", fds.ok() ? std::to_string(fds->size() - 1) : "?");  // less the listing's own
  const auto entered =
      host::enter_private_root({.tmpfs_bytes = 1 << 20, .tmpfs_inodes = 100, .read_only = {"/usr"}, .files = {}});
  tell("entered", entered.ok() ? "yes" : entered.error().message());
  std::string root;
  const auto names = base::list_dir("/", 100);
  for (std::size_t i = 0; names.ok() && i < names->size(); ++i) {
    root += (*names)[i] + " ";
  }
  tell("root", root);
  tell("usr", base::open_file("/usr/x", O_WRONLY | O_CREAT, 0600).ok() ? "writable" : "read-only");
  tell("parent", base::exists("/../etc/passwd") || base::exists("/proc/1") ? "reachable" : "gone");
  const auto kept = host::keep_capabilities(std::array<int, 1>{CAP_CHOWN});
  tell("kept", kept.ok() ? "yes" : kept.error().message());
  tell("capabilities", capabilities());
  tell("no_new_privs", std::to_string(::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)));
  tell("mount", ::mount("none", "/usr", "tmpfs", 0, nullptr) == 0 ? "allowed" : "refused");
  const auto big = base::open_file("/big", O_WRONLY | O_CREAT, 0600);
  tell("tmpfs", big.ok() && base::write_all(big->get(), base::Bytes(2 << 20)).ok() ? "unbounded" : "bounded");
  const auto filtered = host::apply_seccomp(host::SeccompProfile::kUnpacker);
  tell("filtered", filtered.ok() ? "yes" : filtered.error().message());
  (void)std::fflush(stdout);
  if (request.ok() && *request == "socket") {
    (void)::socket(AF_UNIX, SOCK_STREAM, 0);
  } else if (request.ok() && *request == "exec") {
    (void)::execl("/usr/bin/true", "true", nullptr);
  } else if (request.ok() && *request == "fork") {
    (void)::fork();
  } else if (request.ok() && *request == "device") {
    (void)::mknodat(AT_FDCWD, "/null", S_IFCHR | 0600, 0);
  } else if (request.ok() && *request == "code") {
    (void)::syscall(SYS_mmap, nullptr, 4096, 7, 0x22, -1, 0);
  } else if (request.ok() && *request == "hang") {
    for (;;) {
    }
  }
  (void)std::printf("survived\n");
  (void)std::fflush(stdout);
  return 0;
}
