#include "shim/guest/terminal.hpp"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/file.hpp"

namespace cellrund::guest {

using base::Error;

base::Result<Terminal> open_terminal(wire::WindowSize size, uid_t uid) {
  Terminal terminal;
  terminal.master = CR_TRY(base::open_file("/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK));
  const int unlocked = 0;
  if (::ioctl(terminal.master.get(), TIOCSPTLCK, &unlocked) != 0) {
    return Error::from_errno("unlock the terminal");
  }
  // Not by its path: the workload may have mounted something there (ioctl_tty(2)).
  terminal.slave.reset(::ioctl(terminal.master.get(), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!terminal.slave) {
    return Error::from_errno("open the terminal");
  }
  if (::fchown(terminal.slave.get(), uid, static_cast<gid_t>(-1)) != 0) {
    return Error::from_errno("fchown the terminal");
  }
  CR_CHECK(set_window_size(terminal.master.get(), size));
  return terminal;
}

base::Status set_window_size(int terminal_fd, wire::WindowSize size) {
  winsize window{};
  window.ws_row = size.rows;
  window.ws_col = size.columns;
  if (::ioctl(terminal_fd, TIOCSWINSZ, &window) != 0) {
    return Error::from_errno("set the window size");
  }
  return base::ok();
}

}  // namespace cellrund::guest
