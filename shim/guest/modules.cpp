#include "shim/guest/modules.hpp"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "base/file.hpp"

namespace cellrund::guest {

using base::Error;

base::Status load_modules(int initramfs_fd) {
  constexpr std::size_t kMaxList = 16 * 1024;
  const base::UniqueFd list_fd = CR_TRY(base::open_at(initramfs_fd, "modules.list", O_RDONLY));
  const std::string list = CR_TRY(base::read_fd(list_fd.get(), kMaxList));
  std::string_view rest = list;
  while (!rest.empty()) {
    const std::size_t newline = std::min(rest.find('\n'), rest.size());
    const std::string name(rest.substr(0, newline));
    rest.remove_prefix(std::min(newline + 1, rest.size()));
    if (name.empty()) {
      continue;
    }
    const base::UniqueFd module = CR_TRY(base::open_at(initramfs_fd, name, O_RDONLY));
    if (::syscall(SYS_finit_module, module.get(), "", 0) != 0 && errno != EEXIST) {
      return Error::from_errno("load module " + name);
    }
    (void)::unlinkat(initramfs_fd, name.c_str(), 0);  // only memory is at stake
  }
  return base::ok();
}

}  // namespace cellrund::guest
