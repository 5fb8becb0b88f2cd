#include "shim/guest/namespace_init.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>
#include <vector>

#include "base/file.hpp"
#include "shim/guest/fd_message.hpp"
#include "shim/guest/paths.hpp"
#include "shim/guest/rootfs.hpp"
#include "shim/guest/terminal.hpp"
#include "shim/wire/codec.hpp"
#include "shim/wire/messages.hpp"
#include "shim/wire/secrets.hpp"

namespace cellrund::guest {
namespace {

using base::Error;
using base::Status;
using wire::Exit;
using wire::ExitKind;

Exit setup_failed(const Error& error) {
  Exit exit;
  exit.kind = ExitKind::kSetupFailed;
  exit.message = error.message();
  return exit;
}

Exit describe(int wait_status) {
  Exit exit;
  exit.kind = WIFSIGNALED(wait_status) ? ExitKind::kSignaled : ExitKind::kExited;
  exit.value = WIFSIGNALED(wait_status) ? WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
  return exit;
}

// The slave end as all three.
base::Result<WorkloadStdio> stdio_of(Terminal& terminal) {
  WorkloadStdio stdio;
  for (base::UniqueFd* end : {&stdio.in, &stdio.out, &stdio.err}) {
    end->reset(::fcntl(terminal.slave.get(), F_DUPFD_CLOEXEC, 3));
    if (!*end) {
      return Error::from_errno("fcntl F_DUPFD_CLOEXEC");
    }
  }
  terminal.slave.reset();
  return stdio;
}

class NamespaceInit {
 public:
  NamespaceInit(const wire::Workload& workload, int ctl, WorkloadStdio stdio, base::UniqueFd outputs)
      : workload_(workload), ctl_(ctl), stdio_(std::move(stdio)), outputs_(std::move(outputs)) {}

  // How the workload ended; an error when it could not be made ready.
  base::Result<Exit> run() {
    CR_CHECK(prepare());
    while (true) {
      std::vector<pollfd> polls{{ctl_, POLLIN, 0}, {child_signal_.get(), POLLIN, 0}};
      for (const Child& child : children_) {
        polls.push_back({child.failure.get(), POLLIN, 0});  // -1 once it is known
      }
      if (::poll(polls.data(), polls.size(), -1) < 0 && errno != EINTR) {
        return Error::from_errno("poll");
      }
      for (std::size_t i = 2; i < polls.size(); ++i) {
        if (polls[i].revents != 0) {
          CR_CHECK(on_launched(children_[i - 2]));
        }
      }
      if (polls[0].revents != 0) {
        CR_CHECK(on_command());
      }
      if (polls[1].revents != 0) {
        signalfd_siginfo info{};
        while (::read(child_signal_.get(), &info, sizeof(info)) > 0) {
        }
        if (auto ended = CR_TRY(reap())) {
          return std::move(*ended);
        }
      }
    }
  }

 private:
  struct Child {
    std::uint32_t number = 0;  // 0: the first
    pid_t pid = 0;
    base::UniqueFd failure;    // until it is known whether its exec happened
    std::string program;
    base::UniqueFd master;     // of its terminal, until the agent has it
    std::optional<Exit> failed;
  };

  Status prepare() {
    CR_CHECK(build_root(workload_, outputs_.get()));
    outputs_.reset();
    if (::sethostname(workload_.hostname.data(), workload_.hostname.size()) != 0) {
      return Error::from_errno("sethostname");
    }
    sigset_t children;
    (void)::sigemptyset(&children);
    (void)::sigaddset(&children, SIGCHLD);
    if (::sigprocmask(SIG_BLOCK, &children, nullptr) != 0) {
      return Error::from_errno("sigprocmask");
    }
    child_signal_.reset(::signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!child_signal_) {
      return Error::from_errno("signalfd");
    }
    for (const wire::TmpfsMount& tmpfs : workload_.tmpfs) {
      if (tmpfs.path == wire::kSecretsPath) {
        const base::UniqueFd folder = CR_TRY(open_dir(tmpfs.path, 0));
        report(kReportSecrets, std::nullopt, {}, folder.get());
      }
    }
    Terminal terminal;
    if (workload_.terminal) {
      terminal = CR_TRY(open_terminal(*workload_.terminal, workload_.uid));
      stdio_ = CR_TRY(stdio_of(terminal));
    }
    report(kReportPrepared, std::nullopt, {}, terminal.master.get());
    return base::ok();
  }

  // The agent is the reader; when it is gone, so are we in the next moment.
  void report(unsigned char kind, std::optional<std::uint32_t> number, base::BytesView rest = {}, int fd = -1) {
    wire::Writer message;
    message.u8(kind);
    if (number) {
      message.u32(*number);
    }
    message.raw(rest);
    (void)send_message(ctl_, message.bytes(), {fd});
  }

  Status on_command() {
    auto received = receive_message(ctl_, buffer_);
    if (received.ok() && !received->has_value()) {
      return base::ok();
    }
    if (!received.ok() || (*received)->data.empty()) {
      // The agent is gone. In the process lane its own namespace dies with it; be dead in any case.
      ::_exit(1);
    }
    Message& message = **received;
    const unsigned char command = message.data[0];
    wire::Reader in(message.data.subspan(1));
    if (command == kStartCommand) {
      return children_.empty() ? launch(0, workload_, std::move(stdio_), {}) : base::ok();
    }
    if (command == kExecCommand) {
      const std::uint32_t number = in.u32();
      if (const Status joined = join(number, in.raw(in.left()), message.fds); !joined.ok()) {
        report(kReportExecEnded, number, wire::encode(setup_failed(joined.error())));
      }
      return base::ok();
    }
    const bool to_exec = command == kExecSignalCommand;
    const std::uint32_t number = to_exec ? in.u32() : 0;
    const int signo = to_exec ? in.u8() : command;
    for (const Child& child : children_) {
      if (child.number == number) {
        (void)::kill(child.pid, signo);  // it is our unreaped child, so the pid is its own
      }
    }
    return base::ok();
  }

  Status join(std::uint32_t number, base::BytesView encoded, std::vector<base::UniqueFd>& fds) {
    const wire::Process process = CR_TRY(wire::decode_process(encoded));
    Terminal terminal;
    WorkloadStdio stdio;
    if (process.terminal) {
      terminal = CR_TRY(open_terminal(*process.terminal, process.uid));
      stdio = CR_TRY(stdio_of(terminal));
    } else if (fds.size() == 3) {
      stdio = WorkloadStdio{std::move(fds[0]), std::move(fds[1]), std::move(fds[2])};
    } else {
      return Error(base::Errc::kInvalidArgument, "exec without its descriptors");
    }
    return launch(number, process, std::move(stdio), std::move(terminal.master));
  }

  Status launch(std::uint32_t number, const wire::Process& process, WorkloadStdio stdio, base::UniqueFd master) {
    LaunchedProcess launched = CR_TRY(launch_process(process, stdio));
    children_.push_back({number, launched.pid, std::move(launched.failure), process.args.front(), std::move(master), {}});
    return base::ok();
  }

  // Its exec has happened or failed; a failed child is dead in a moment, and its end is reported then.
  Status on_launched(Child& child) {
    const base::UniqueFd failure = std::move(child.failure);
    child.failed = CR_TRY(read_launch(failure.get(), child.program));
    if (!child.failed) {
      report(child.number == 0 ? kReportStarted : kReportExecStarted,
             child.number == 0 ? std::nullopt : std::optional(child.number), {}, child.master.get());
    }
    child.master.reset();
    return base::ok();
  }

  // The first process's end, when it has ended.
  base::Result<std::optional<Exit>> reap() {
    int status = 0;
    pid_t pid = 0;
    while ((pid = ::waitpid(-1, &status, WNOHANG)) > 0) {
      const auto child = std::find_if(children_.begin(), children_.end(), [&](const Child& c) { return c.pid == pid; });
      if (child == children_.end()) {
        continue;  // an orphan of the workload
      }
      if (child->failure) {
        CR_CHECK(on_launched(*child));
      }
      Exit exit = child->failed.value_or(describe(status));
      if (child->number == 0) {
        exit.disk_full = storage_is_full(workload_);
        return std::optional<Exit>(std::move(exit));
      }
      report(kReportExecEnded, child->number, wire::encode(exit));
      children_.erase(child);
    }
    return std::optional<Exit>{};
  }

  const wire::Workload& workload_;
  int ctl_;
  WorkloadStdio stdio_;
  base::UniqueFd outputs_;
  base::UniqueFd child_signal_;
  std::vector<Child> children_;
  base::Bytes buffer_ = base::Bytes(wire::kMaxPayload + 64);
};

}  // namespace

void run_namespace_init(const wire::Workload& workload, base::UniqueFd ctl, WorkloadStdio stdio, base::UniqueFd outputs) noexcept {
  (void)::prctl(PR_SET_PDEATHSIG, SIGKILL);
  (void)::prctl(PR_SET_NAME, "cell-init");
  const base::Result<Exit> ended = NamespaceInit(workload, ctl.get(), std::move(stdio), std::move(outputs)).run();
  base::Bytes message{kReportEnded};
  const base::Bytes encoded = wire::encode(ended.ok() ? *ended : setup_failed(ended.error()));
  message.insert(message.end(), encoded.begin(), encoded.end());
  (void)send_message(ctl.get(), message);
  ::_exit(0);  // the kernel now kills whatever else lives in this namespace (pid_namespaces(7))
}

}  // namespace cellrund::guest
